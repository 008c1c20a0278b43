"""Classes of the script's own, and of modules beside it: whether a call of their methods changes the object."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import assignments, function_of
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk

GROWS = re.compile(
    r"append|appendleft|extend|insert|add|update|pop|popleft|popitem|remove|discard|clear|setdefault|sort|reverse"
)
_DRAWS = ("shuffle", "integers", "random", "permutation", "choice", "randint")
COUNTS = re.compile(r"step|update|update_\w+|push|push_\w+|record|observe|put|store|check")


@functools.lru_cache(maxsize=2)  # modules beside a script are parsed once for all that ask
def classes_of(script: Script) -> dict[str, Any]:
    """Return the classes of a script, and of modules beside it from which it imports, by the path to them."""
    found = {node.name.value: (script, node) for node in script.all(cst.ClassDef)}
    stars = {
        f"{script.path(node.module)}.*": f"{script.path(node.module)}.*"
        for node in script.all(cst.ImportFrom)
        if isinstance(node.names, cst.ImportStar) and node.module is not None
    }
    for name, path in (*script.imports.items(), *stars.items()):
        module, _, member = path.lstrip(".").rpartition(".")
        beside = Path(script.name).parent / f"{module.replace('.', '/')}.py"
        if not module or not beside.is_file():
            continue
        try:
            other = Script(beside.read_bytes(), str(beside))
        except (OSError, SettingsError):
            continue
        for node in other.all(cst.ClassDef):
            if member == "*":
                found.setdefault(node.name.value, (other, node))
            elif node.name.value == member:
                found[path] = found[name] = (other, node)
    return found


def changes_itself(script: Script, kind: Any, method: str, classes: dict[str, Any], depth: int = 4) -> bool:
    """Tell whether a method of a class changes its object; true where that can't be seen."""
    home, node = kind
    functions = {one.name.value: one for one in home.all(cst.FunctionDef, node)}
    if method not in functions:
        bases = [classes[dotted(base.value)] for base in node.bases if dotted(base.value) in classes]
        if bases:
            return any(changes_itself(script, base, method, classes, depth) for base in bases)
        return bool(node.bases) and (method in functions or bool(COUNTS.fullmatch(method)))
    body = functions[method].body
    walk = Walk(home, follow=False)
    walk.suite(body)
    if any(name.startswith("self.") for name in (*walk.written, *walk.changed)):
        return True
    for on, called, _ in walk.calls:
        inner = on == "self" and depth > 0 and called != method and called in functions
        if inner and changes_itself(script, kind, called, classes, depth - 1):
            return True
        if on.startswith("self.") and (
            GROWS.fullmatch(called) or COUNTS.fullmatch(called) or called.endswith("_")
        ):
            return True
        if on.startswith("self.") and called in _DRAWS:
            return True
    return any(
        home.path(call.func).endswith("shuffle") or home.path(call.func) == "next"
        for call in home.all(cst.Call, body)
    )


def moves_on(script: Script, kind: Any, method: str, classes: dict[str, Any], depth: int = 4) -> bool:
    """Tell whether a method changes its object by what that holds, so that called twice it does more than once."""
    home, node = kind
    functions = {one.name.value: one for one in home.all(cst.FunctionDef, node)}
    if method not in functions:
        bases = [classes[dotted(base.value)] for base in node.bases if dotted(base.value) in classes]
        return any(moves_on(script, base, method, classes, depth) for base in bases)
    walk = Walk(home, follow=False)
    walk.suite(functions[method].body)
    begun = {name for name in walk.written if name not in walk.read_first}
    if any(name.startswith("self.") and name not in begun for name in (*walk.written, *walk.changed)):
        return True
    for on, called, _ in walk.calls:
        inner = on == "self" and depth > 0 and called != method and called in functions
        if inner and moves_on(script, kind, called, classes, depth - 1):
            return True
        held = on.startswith("self.") and on not in begun
        if held and (GROWS.fullmatch(called) or COUNTS.fullmatch(called) or called in _DRAWS):
            return True
    return False


def called_unasked(kind: Any) -> list[str]:
    """Return the methods of a class that are called without their names: properties, and special ones."""
    home, node = kind
    return [
        one.name.value
        for one in home.all(cst.FunctionDef, node)
        if any(dotted(each.decorator) in ("property", "cached_property") for each in one.decorators)
        or re.fullmatch(r"__(?!init__|new__|call__|del__|repr__|str__)\w+__", one.name.value)
    ]


def holds_iterator(kind: Any) -> bool:
    """Tell whether an object of a class keeps an open iterator: its place in its data is no attribute."""
    home, node = kind
    return any(
        dotted(call.func) == "next"
        and call.args
        and not isinstance(call.args[0].value, cst.Call)  # made there, it goes nowhere
        and "self" in {one.value for one in home.all(cst.Name, call.args[0])}
        for call in home.all(cst.Call, node)
    ) or any(
        isinstance(call.func, cst.Attribute) and call.func.attr.value in ("next", "__next__")
        for call in home.all(cst.Call, node)
    )


def is_kind(script: Script, kind: Any, ending: str, classes: dict[str, Any]) -> bool:
    home, node = kind
    bases = [dotted(base.value) for base in node.bases]
    return any(home.path(base.value).endswith(ending) for base in node.bases) or any(
        is_kind(script, classes[base], ending, classes)
        for base in bases
        if base in classes and base != node.name.value
    )


def containers_of(kind: Any) -> set[str]:
    """Return the attributes that the objects of a class begin with a list, a dict or the like in."""
    home, node = kind
    found = set()
    for one in assignments(home, node, fields=True):
        of_class = isinstance(one.node, cst.AnnAssign) and function_of(home, one.node) is None
        for name in map(dotted, one.targets):
            if (name.startswith("self.") or of_class) and _begins_container(home, one.value):
                found.add(name.removeprefix("self."))
    return found


def _begins_container(home: Script, value: Any) -> bool:
    made_by = [one for one in getattr(value, "args", ()) if one.keyword is not None]
    fields = [one.value for one in made_by if one.keyword.value == "default_factory"]
    return _is_container(home, value) or any(home.path(one) in _CONTAINERS for one in fields)


def _is_container(home: Script, value: Any) -> bool:
    made = isinstance(value, cst.Call) and home.path(value.func) in _CONTAINERS
    return made or isinstance(value, (cst.List, cst.Dict, cst.Set))


_TENSORS = re.compile(
    r"^torch\.(?:zeros|ones|full|empty|rand|randn|randint|tensor|arange|eye|linspace)(?:_like)?$"
)
_CONTAINERS = ("list", "dict", "set", "collections.deque", "collections.defaultdict", "collections.Counter")


def counted_by_module(
    kind: Any, methods: Iterable[str] = (), *, forward: bool = True, containers: bool = False
) -> dict[str, int]:
    """Return attributes of a module that ``forward()`` hands on from call to call, or ``methods`` set; the lines.

    No ``state_dict()`` has them: what ``__init__`` sets to a number, None, a flag or a tensor, and buffers that aren't
    persistent. ``containers``: lists, dicts and the like, too.
    """
    home, node = kind
    functions = {one.name.value: one for one in home.all(cst.FunctionDef, node)}
    plain: set[str] = set()
    begin = functions["__init__"].body if "__init__" in functions else node.body
    for one in assignments(home, begin, fields=True):
        for target in one.targets:
            pairs = [(target, one.value)]
            if isinstance(target, cst.Tuple) and isinstance(one.value, cst.Tuple):
                pairs = [
                    (a.value, b.value) for a, b in zip(target.elements, one.value.elements, strict=False)
                ]
            plain |= {dotted(name) for name, value in pairs if _is_plain(home, value, containers)}
    for call in home.all(cst.Call, node):
        if dotted(call.func) == "self.register_buffer" and re.search(
            r"persistent\s*=\s*False", home.code(call)
        ):
            plain.add(f"self.{home.code(call.args[0].value).strip(chr(34) + chr(39))}")
    found: dict[str, int] = {}
    coming, seen = [*methods, *(["forward"] if forward else [])], set()
    while coming:
        name = coming.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        walk = Walk(home, follow=False)
        walk.suite(functions[name].body)
        coming += [called for on, called, _ in walk.calls if on == "self"]
        changed = dict(walk.changed)
        changed |= {on: home.line(call) for on, called, call in walk.calls if GROWS.fullmatch(called)}
        for attribute, line in (*walk.written.items(), *changed.items()):
            lasts = attribute in walk.read_first or name in methods
            if attribute in plain and attribute.startswith("self.") and lasts:
                found.setdefault(attribute.removeprefix("self."), line)
    return found


def _is_plain(home: Script, value: Any, containers: bool) -> bool:
    """Tell whether a value is one that a module keeps by itself: no parameter, buffer or module."""
    if isinstance(value, (cst.Integer, cst.Float)) or dotted(value) in ("None", "True", "False"):
        return True
    path = home.path(value.func) if isinstance(value, cst.Call) else ""
    if containers and _is_container(home, value):
        return True
    return bool(_TENSORS.search(path))
