"""Walk through a piece of a script as it runs: what is read before it is written, what is written, what is called.

Calls of functions of the script's own are followed, with what they are given in place of their parameters.

One file, because statements and expressions walk into each other.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import sources_of
from vaultlayer_hf.run.insert.listed_names import listed_names
from vaultlayer_hf.run.insert.own_functions import OF_MODULES, functions_of, parameters_of
from vaultlayer_hf.run.insert.seen_names import SeenNames, root
from vaultlayer_hf.run.insert.source import Script, dotted

_UPDATES = re.compile(r"ema|update|sync|target|momentum|polyak|copy|average", re.IGNORECASE)
_HOOKS = re.compile(r"^register_(?:\w*(?:forward|backward|grad|step)\w*_)?hook$")
_ENDS = ("sys.exit", "exit", "quit", "os._exit")


class Walk(SeenNames):
    """What was seen.

    Args:
        script: to which the statements belong.
        defined: names that are set when it begins.
        follow: whether calls of functions of the script's own are followed.
        proves: whether what is read counts as set from there on: the script would have ended there otherwise.
    """

    def __init__(
        self, script: Script, defined: set[str] | None = None, *, follow: bool = True, proves: bool = False
    ) -> None:
        super().__init__(defined, proves=proves)
        self.script = script
        self._own = functions_of(script) if follow else None
        self._within: list[Any] = []  # functions that are followed, one inside the other

    # Statements ----------------------------------------------------------------------------------------

    def block(self, statements: Any) -> bool:
        """Walk through statements; return whether they leave for elsewhere at their end."""
        return _any_of(self.statement, statements)

    def statement(self, node: Any) -> bool:
        """Walk through one statement; return whether it leaves for elsewhere."""
        if isinstance(node, cst.SimpleStatementLine):
            return _any_of(self._small, node.body)
        if isinstance(node, cst.If):
            return self._if(node)
        if isinstance(node, cst.For):
            self.expression(node.iter)
            self.target(node.target)
            self._note_members(node)
            self.suite(node.body)
            if node.orelse is not None:
                self.suite(node.orelse.body)
        elif isinstance(node, cst.While):
            self.expression(node.test)
            self.suite(node.body)
        elif isinstance(node, cst.With):
            for item in node.items:
                self.expression(item.item)
                if item.asname is not None:
                    self.target(item.asname.name)
            return self.suite(node.body)
        elif isinstance(node, cst.Try):
            self._try(node)
        elif isinstance(node, cst.FunctionDef):
            self._inner_function(node)
        elif not isinstance(node, cst.ClassDef):
            before = set(self.defined)
            for child in node.children:
                self._any(child)
            self.defined = before
        return False

    def _note_members(self, loop: Any) -> None:
        """Note of which variables a loop's own ones are members: what changes those in place changes these."""
        gone = [self._named(dotted(one)) for one in self.script.all(cst.Name, loop.iter)]
        gone += [self._named(root(one)) for one in self.script.all(cst.Attribute, loop.iter)]
        for one in self.script.all(cst.Name, loop.target):
            self.members[one.value] = [name for name in gone if name]
            self._listed.pop(one.value, None)
        self._listed |= listed_names(loop.target, loop.iter)

    def _any(self, node: Any) -> None:
        if isinstance(node, (cst.BaseExpression,)):
            self.expression(node)
        elif hasattr(node, "body"):
            self.suite(node.body)
        else:
            for child in node.children:
                self._any(child)

    def suite(self, body: Any) -> bool:
        """Walk through a suite, indented or on the line of its head; return whether it leaves at its end."""
        statements = getattr(body, "body", body)
        if isinstance(body, cst.SimpleStatementSuite):
            return _any_of(self._small, statements)
        return self.block(statements)

    def _small(self, node: Any) -> bool:
        if isinstance(node, cst.Assign):
            self.expression(node.value)
            for target in node.targets:
                self.target(target.target)
        elif isinstance(node, cst.AnnAssign):
            if node.value is not None:
                self.expression(node.value)
                self.target(node.target)
        elif isinstance(node, cst.AugAssign):
            self.expression(node.target)
            self.expression(node.value)
            self.target(node.target)
        elif isinstance(node, cst.Del):
            self._deleted(node.target)
        elif isinstance(node, (cst.Return, cst.Raise, cst.Continue, cst.Break)):
            for child in node.children:
                self.expression(child)
            return True
        else:
            for child in node.children:
                self.expression(child)
            call = node.value if isinstance(node, cst.Expr) else None
            return isinstance(call, cst.Call) and self.script.path(call.func) in _ENDS
        return False

    def _deleted(self, target: Any) -> None:
        for name in [target] if dotted(target) else self.script.all(cst.Name, target):
            if (
                self._names is None or dotted(name) not in self._names
            ):  # a function's own stays what it is outside
                self.defined.discard(self._named(dotted(name)))

    def _if(self, node: Any) -> bool:
        self.expression(node.test)
        before = set(self.defined)
        ends = []
        left = self.suite(node.body)
        if not left:
            ends.append(self.defined)
        self.defined = set(before)
        if node.orelse is not None:
            other = node.orelse
            left_too = self._if(other) if isinstance(other, cst.If) else self.suite(other.body)
        else:
            left_too = False
        if not left_too:
            ends.append(self.defined)
        self.defined = set.intersection(*ends) if ends else before
        return not ends

    def _try(self, node: Any) -> None:
        before = set(self.defined)
        self.suite(node.body)
        ends = [self.defined]
        for handler in node.handlers:
            self.defined = set(before)
            if handler.name is not None:
                self.target(handler.name.name)
            if not self.suite(handler.body):
                ends.append(self.defined)
        self.defined = set.intersection(*ends)
        for rest in (node.orelse, node.finalbody):
            if rest is not None:
                self.suite(rest.body)

    def _inner_function(self, node: Any) -> None:
        """A function that is defined on the way reads what is around it whenever it is called."""
        inner = Walk(self.script, self.defined | parameters_of(node), follow=self._own is not None)
        inner.suite(node.body)
        own = set(inner.written)
        proves, self._proves = self._proves, False  # it may never be called
        for name, line in inner.read_first.items():
            if name.partition(".")[0] not in own:
                self._read(name, line)
        self._proves = proves
        self.calls += [call for call in inner.calls if call[0].partition(".")[0] not in own]
        self._write(node.name.value, self.script.line(node))

    # Expressions ---------------------------------------------------------------------------------------

    def expression(self, node: Any) -> None:
        """Walk through an expression, about in the order in which it is worked out."""
        name = dotted(node)
        if name:
            self._read(name, self.script.line(node))
        elif isinstance(node, cst.NamedExpr):
            self.expression(node.value)
            self.target(node.target)
        elif isinstance(node, (cst.ListComp, cst.SetComp, cst.GeneratorExp, cst.DictComp)):
            inner = Walk(self.script, self.defined, follow=self._own is not None)
            inner._names, inner._within = self._names, self._within
            inner._comprehension(node)
            own = set(inner.written)
            for found, line in inner.read_first.items():
                if found.partition(".")[0] not in own:
                    self.read_first.setdefault(found, line)
            self.calls += [call for call in inner.calls if call[0].partition(".")[0] not in own]
            self.modules |= inner.modules
        elif isinstance(node, cst.Lambda):
            before, proves = set(self.defined), self._proves
            self._proves = False
            self.defined |= parameters_of(node)
            self.expression(node.body)
            self.defined, self._proves = before, proves
        elif isinstance(node, cst.Call):
            self._call(node)
        elif isinstance(node, (cst.Attribute, cst.Arg)):  # the names in them aren't variables
            self.expression(node.value)
        else:
            for child in node.children:
                self.expression(child)

    def _comprehension(self, node: Any) -> None:
        part = node.for_in
        while part is not None:
            self.expression(part.iter)
            self.target(part.target)
            for test in part.ifs:
                self.expression(test.test)
            part = part.inner_for_in
        for child in node.children:
            if child is not node.for_in:
                self.expression(child)

    def _call(self, node: Any) -> None:
        for argument in node.args:
            self.expression(argument.value)
        name = dotted(node.func)
        function = self._own.called(node, self._within) if self._own is not None else None
        if isinstance(node.func, cst.Attribute):
            self.expression(node.func.value)
            self._note_method(node, name, followed=function is not None)
        elif name:
            self._read(name, self.script.line(node))
            if function is None and self._named(name):
                self.calls.append((self._named(name), "__call__", node))
        else:
            self.expression(node.func)
        if function is not None:
            self._follow(function, node)
        elif self._own is not None and self._stands_for_lambda(name):
            pass
        elif _UPDATES.search(name.rpartition(".")[2]) and not self.script.path(node.func).startswith(
            "torch."
        ):
            for argument in node.args:
                if given := self._named(dotted(argument.value)):
                    self.given.setdefault(given, self.script.line(node))

    def _note_method(self, node: Any, name: str, *, followed: bool) -> None:
        """Note what a call of a method says of the object; ``followed``: its function is walked through."""
        above, method = node.func.value, node.func.attr.value
        on = self._named(root(above))
        if method in OF_MODULES and self._named(dotted(above)):
            self.modules.add(on)
        if method.endswith("_") and not method.startswith("_") and method != "requires_grad_":
            changed = root(_seen_through(above))
            for one in self.members.get(changed.partition(".")[0], [self._named(changed)]):
                if one:
                    self.changed.setdefault(one, self.script.line(node))
        if on and not followed:
            self.calls.append((on, method, node))
            self.calls += [
                (named, method, node) for one in self._stands_for(root(above)) if (named := self._named(one))
            ]
            whole = self._named(name)
            # An object that is called itself.
            if whole.startswith("self.") and sources_of(self.script, whole):
                self.calls.append((whole, "__call__", node))

    def _follow(self, function: Any, call: Any) -> None:
        assert self._own is not None
        assigned = local_names(self.script, function)
        before, self._names = self._names, self._own.stand_for(function, call, assigned, self._named)
        self._within.append(function)
        self.suite(function.body)
        self._within.pop()
        self._names = before

    def of_hooks(self) -> None:
        """Walk through the functions that the script has given to modules and tensors as hooks."""
        for call in self.script.all(cst.Call):
            registers = isinstance(call.func, cst.Attribute) and _HOOKS.search(call.func.attr.value)
            for given in call.args if registers else ():
                hook = cst.Call(given.value)
                function = self._own.called(hook, self._within) if self._own is not None else None
                if function is not None:
                    self._follow(function, hook)

    def _stands_for_lambda(self, name: str) -> bool:
        """Walk through the lambda that a name is assigned; return whether it is one."""
        sources = sources_of(self.script, name) if name else []
        if len(sources) != 1 or not isinstance(sources[0], cst.Lambda):
            return False
        if any(sources[0] is one for one in self._within):
            return True
        before, proves = self._names, self._proves
        self._names = (before or {}) | dict.fromkeys(parameters_of(sources[0]), "")
        self._within.append(sources[0])
        self.expression(sources[0].body)
        self._within.pop()
        self._names, self._proves = before, proves
        return True

    def target(self, node: Any) -> None:
        """Walk through what is assigned to."""
        if dotted(node):
            self._write(dotted(node), self.script.line(node))
        elif isinstance(node, (cst.Tuple, cst.List)):
            for element in node.elements:
                self.target(element.value)
        elif isinstance(node, cst.StarredElement):
            self.target(node.value)
        elif isinstance(node, cst.Subscript):
            self.expression(node)
            on = self._named(root(node))
            if on:
                self.changed.setdefault(on, self.script.line(node))
        else:
            self.expression(node)


def _seen_through(node: Any) -> Any:
    """Return what ``a.detach().mul_(2)`` changes: ``a``."""
    while type(node).__name__ == "Call" and type(node.func).__name__ == "Attribute":
        method = node.func.attr.value
        if method not in ("detach", "view", "view_as", "flatten", "squeeze", "t") and not method.endswith(
            "_"
        ):
            break
        node = node.func.value
    return node


def _any_of(walk: Callable[[Any], bool], nodes: Any) -> bool:
    """Walk through all of them, and return whether one leaves."""
    return True in [walk(one) for one in nodes]


@functools.lru_cache(maxsize=256)  # asked for at every call that a walk follows
def local_names(script: Script, function: Any) -> frozenset[str]:
    """Return the names that a function assigns."""
    inner = Walk(script, follow=False)
    inner.suite(function.body)
    return frozenset(name for name in inner.written if "." not in name)
