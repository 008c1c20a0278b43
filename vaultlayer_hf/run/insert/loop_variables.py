"""Variables and objects that a loop changes beside its model and optimizer, and on which its course may hang.

Each is brought back, or the script is left alone: what was counted, a rate in a variable, a patience, a loader's place.

One file, because what a name holds is asked for each of them, and decides where it comes back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from vaultlayer_hf.run.insert.ahead_of_batches import again_objects, made_ahead
from vaultlayer_hf.run.insert.calls import call_that_makes, method_calls, receiver, sources_of
from vaultlayer_hf.run.insert.defined_before import defined_before
from vaultlayer_hf.run.insert.frameworks import ENVIRONMENT
from vaultlayer_hf.run.insert.kept_files import kept_files
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_limits import (
    ahead,
    ahead_within,
    refuse_new_groups,
    refuse_what_repeats,
)
from vaultlayer_hf.run.insert.loop_names import Names
from vaultlayer_hf.run.insert.maybe_set import maybe_set
from vaultlayer_hf.run.insert.own_classes import (
    COUNTS,
    GROWS,
    changes_itself,
    classes_of,
    counted_by_module,
    holds_iterator,
    is_kind,
)
from vaultlayer_hf.run.insert.own_functions import OF_MODULES, parameters_of
from vaultlayer_hf.run.insert.own_resume import moved_starts
from vaultlayer_hf.run.insert.source import Script, dotted, libcst_or_error
from vaultlayer_hf.run.insert.streams import function_of
from vaultlayer_hf.run.insert.walk import Walk, local_names

_CLOCK = re.compile(r"(?:^|\.)(?:time|perf_counter|monotonic|process_time|time_ns|now|Event)$")
_GENERATORS = (
    "torch.Generator",
    "numpy.random.default_rng",
    "numpy.random.RandomState",
    "random.Random",
)
_ARRAYS = re.compile(r"^(?:torch|numpy)\.[a-z_]+$|(?:^|\.)(?:deepcopy|clone|detach|copy)$")
"""What makes a tensor or an array."""
_CONTAINERS = ("list", "dict", "set", "collections.deque", "collections.defaultdict", "collections.Counter")
_GIVES_BATCHES = re.compile(r"next_batch|get_batch|next_\w+|read_batch|__next__|fetch_batch|get_next_batch")
_LOGS = re.compile(
    r"tqdm|trange|SummaryWriter|wandb|logg|writer|rich\.|Progress|open$|argparse|neptune|mlflow|time\."
)
_REMADE = re.compile(r"(?:^torch\.optim\b(?!.*swa)|DataLoader$|lr_scheduler\.|(?:^|\.)GradScaler$)")


@dataclass
class Variables:
    """What a loop's edit brings back beside the objects of ``Names``.

    Attributes:
        loop: names that go from one round of the outermost loop to the next, or behind it.
        objects: names of what the loop changes in place: a random generator, an object of a class of the script's own.
        in_pass: names that go from one batch to the next, within one pass.
        unset: of both, those that nothing sets before.
        left: names that only a pass sets, and the code behind it reads: a resume may have no batch left that sets them.
        models: further modules whose state the loop changes.
        reset: of ``objects``, those that each epoch resets ahead of its batches.
        again: (key, code) of what the code ahead of an epoch's batches may change of optimizers and schedules.
        maybe: of all these, those that are set only under a condition, and the statement that does it first.
        files: the code of the paths of files that the loop writes, and that are read behind it.
    """

    loop: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    in_pass: list[str] = field(default_factory=list)
    unset: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    reset: list[str] = field(default_factory=list)
    again: list[tuple[str, str]] = field(default_factory=list)
    maybe: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


def find_variables(script: Script, loop: Loop, names: Names, known: set[str]) -> Variables:
    """Return what is to be brought back; ``known``: objects that are taken care of. Raises UnclearError."""
    return _Finder(script, loop, names, known).find()


class _Finder:
    def __init__(self, script: Script, loop: Loop, names: Names, known: set[str]) -> None:
        self.script, self.loop, self.names = script, loop, names
        self.known = known
        self.cst: Any = libcst_or_error()
        self.classes = classes_of(script)

    def find(self) -> Variables:
        script, loop, cst = self.script, self.loop, self.cst
        top = loop.top
        surely, maybe = defined_before(script, top), maybe_set(script, top)
        before = surely | set(maybe)
        walk = self._walk(top)
        self._refuse_changed_samplers(walk)
        found = Variables()
        behind = self._read_behind(top)
        for name, line in walk.written.items():
            if name in self.names.tensors:
                raise UnclearError(
                    f"line {line} makes {name} anew within the loop, and the optimizer goes on with the one from before"
                )
            if name in walk.read_first or name in behind:
                self._refuse_new_parts(name, line)
                if self._is_variable(name) and self._can_be_kept(name, top):
                    found.loop.append(name)
                    if "." not in name and name not in before:
                        found.unset.add(name)
        if isinstance(top, cst.For):
            found.loop += [
                name
                for name in moved_starts(script, top, self._sources)
                if self._is_variable(name) and name not in found.loop
            ]
        changed_modules = self._changed_modules(walk, before)
        found.models += changed_modules
        for name in self._changed_objects(walk, before):
            if name in changed_modules:
                continue
            if self._is_module(name):
                found.models.append(name)
            elif self._is_container(name):
                if self._can_be_kept(name, top):
                    found.loop.append(name)
            elif name not in found.loop:
                found.objects.append(name)
        found.models = [name for name in dict.fromkeys(found.models) if name not in self.known]
        found.loop = [name for name in dict.fromkeys(found.loop) if name not in self.known]
        found.loop += [name for name in self._counted_by_modules(walk) if name not in found.loop]
        refuse_new_groups(script, loop, walk, bool(self.names.accelerator))
        found.files = kept_files(script, loop, walk)
        if loop.outer is not None:
            # What an epoch sets ahead of its batches, be it under a condition, is set again where the epoch goes on.
            again = Walk(script)
            again.block(ahead(script, loop))
            again.block(ahead_within(script, loop))
            changed = self._changed_in_pass(self._walk(loop.inner))
            clears = {on for on, method, _ in again.calls if method in ("reset", "clear")}
            found.reset = [name for name in found.objects if name in clears and name in changed]
            kept = found.loop + found.objects + found.models
            self._refuse_counting_ahead(again)
            refuse_what_repeats(script, loop, again, kept, self.names, found.reset)
            found.again = again_objects(script, loop, self.names)
            found.in_pass = self._of_pass(
                (set(found.loop) & set(walk.read_first)) - set(again.written), found.unset
            )
            made = [name for name in changed if name in again.written]
            for name in dict.fromkeys(made + made_ahead(script, loop, self.names)):
                new = name.isidentifier() and name not in found.in_pass and name not in self.known
                if new and self._is_variable(name):
                    found.in_pass.append(name)
            found.left = self._left_by_pass(again, found)
        for name in self.names.of_pass:
            if name not in found.in_pass:
                raise UnclearError(
                    f"{name} isn't known in line {self.script.line(top)}, where its loop starts"
                )
        for name in (*found.loop, *found.objects, *found.models):
            if name in maybe and name not in surely:
                found.maybe[name] = maybe[name]
        maybe, surely = maybe_set(script, loop.inner), defined_before(script, loop.inner) | found.unset
        for name in found.in_pass:
            if name in maybe and name not in surely:
                found.maybe.setdefault(name, maybe[name])
        return found

    def _changed_modules(self, walk: Walk, before: set[str]) -> list[str]:
        """Return the modules outside of the optimizer whose weights the loop changes: a target, a teacher that follows.

        Those that it gives to a function of a library which, by its name, changes them, included.
        """
        found = [on for on, method, _ in walk.calls if method == "load_state_dict" and on in walk.modules]
        found += [name for name in walk.changed if name in walk.modules]
        found += [name for name in walk.given if self._is_module(name) or self._acts_as_module(name)]
        return [
            name
            for name in dict.fromkeys(found)
            if name.partition(".")[0] in before
            and name.partition(".")[0] not in self.script.imports
            and not any(one in self.known for one in _prefixes(name))
        ]

    def _acts_as_module(self, name: str) -> bool:
        """Tell whether the script asks an object somewhere for what only modules have."""
        return any(
            receiver(call) == name for method in OF_MODULES for call in method_calls(self.script, method)
        )

    def _counted_by_modules(self, walk: Walk) -> list[str]:
        """Return the numbers that a model counts, ``model.calls``. Raises UnclearError for those of a part of it."""
        found: list[str] = []
        for path, kind in self.classes.items():
            if "." in path or not is_kind(self.script, kind, "Module", self.classes):
                continue
            called = [
                method for on, method, _ in walk.calls if on in self.names.models and self._made(on) == [path]
            ]
            for attribute, line in counted_by_module(kind, called).items():
                names = [name for name in self.names.models if self._made(name) == [path]]
                if not names and kind[0] is not self.script:
                    continue  # it may not be used here at all
                if not names:
                    raise UnclearError(
                        f"line {line} changes self.{attribute} in the forward() of {path}, and no state_dict() holds "
                        "it: make it a buffer (register_buffer)"
                    )
                found += [f"{name}.{attribute}" for name in names]
        return found

    def _changed_in_pass(self, inner: Walk) -> list[str]:
        """Return the objects that batches change in place: a meter, a list."""
        found = [name for name in inner.changed if self._keeps_values(name)]
        for on, method, call in inner.calls:
            if on and on not in self.known and self._sources(on) and self._is_variable(on):
                found += [on] if self._changes(on, method, call) else []
        return [name for name in dict.fromkeys(found) if name not in self.known and not self._is_module(name)]

    def _refuse_changed_samplers(self, walk: Walk) -> None:
        """Raise UnclearError for an attribute of torch's samplers and loaders that the loop sets."""
        for name, line in walk.written.items():
            owner = name.rpartition(".")[0]
            if owner and any(one.startswith("torch.utils.data.") for one in self._made(owner)):
                raise UnclearError(
                    f"line {line} changes {name} within the loop, which a checkpoint hasn't got: torch's samplers and "
                    "loaders don't keep it"
                )

    def _refuse_counting_ahead(self, again: Walk) -> None:
        """Raise UnclearError for a method of a model that counts, ahead of an epoch's batches."""
        for on, method, call in again.calls:
            kinds = [
                self.classes[one] for one in self._made(on) if on in self.names.models and one in self.classes
            ]
            if method != "__call__" and any(
                counted_by_module(kind, [method], forward=False) for kind in kinds
            ):
                raise UnclearError(
                    f"line {self.script.line(call)} changes {on} ahead of an epoch's batches, where a resume within "
                    "the epoch would repeat it: move it behind them"
                )

    def _walk(self, loop: Any) -> Walk:
        walk = Walk(self.script)
        if isinstance(loop, self.cst.For):
            walk.expression(loop.iter)
            walk.read_first.clear()  # worked out once, before the first round
            walk.calls.clear()
            walk.target(loop.target)
        else:
            walk.expression(loop.test)
        walk.block(loop.body.body)
        return walk

    def _of_pass(self, carried: set[str], unset: set[str]) -> list[str]:
        """Return the names that one batch leaves to the next; ``carried``: those that epochs do, too."""
        inner = self.loop.inner
        walk = self._walk(inner)
        before = defined_before(self.script, inner) | unset | set(maybe_set(self.script, inner))
        behind = self._read_behind(inner)
        return [
            name
            for name in walk.written
            if "." not in name
            and name in before
            and (name in walk.read_first or name in behind)
            and name not in carried
            and name not in self.known
            and self._is_variable(name)
            and not self._is_target(inner, name)
            and self._sets_before(inner, name)
        ]

    def _left_by_pass(self, again: Walk, found: Variables) -> list[str]:
        """Return the names that only a pass sets, and the code behind it reads: no batch may be left that sets them."""
        inner = self.loop.inner
        walk, behind = self._walk(inner), self._read_behind(inner)
        before = defined_before(self.script, inner) | set(maybe_set(self.script, inner)) | set(again.written)
        kept = {*before, *found.loop, *found.in_pass, *self.known, *self.names.models, *self.names.others}
        return [
            name
            for name in walk.written
            if name.isidentifier()
            and name in behind
            and name not in kept
            and name not in walk.read_first
            and self._is_variable(name)
            and self._sets_before(inner, name)
        ]

    def _sets_before(self, loop: Any, name: str) -> bool:
        """Tell whether a name is the function's own, and not one of the module that it only reads."""
        functions = [one for one in self.script.around(loop) if isinstance(one, self.cst.FunctionDef)]
        return not functions or name in local_names(self.script, functions[0])

    def _is_target(self, loop: Any, name: str) -> bool:
        return isinstance(loop, self.cst.For) and any(
            one.value == name for one in self.script.all(self.cst.Name, loop.target)
        )

    def _read_behind(self, loop: Any) -> dict[str, int]:
        """Return the names that are read behind a loop, in its function, before they are written."""
        walk = Walk(self.script)
        node = loop
        while True:
            block = self.script.parent(node)
            body = getattr(block, "body", ())
            if isinstance(body, (list, tuple)) and any(one is node for one in body):
                position = next(number for number, one in enumerate(body) if one is node)
                walk.block(body[position + 1 :])
            if block is None or isinstance(block, (self.cst.FunctionDef, self.cst.Module)):
                return walk.read_first
            if isinstance(block, (self.cst.For, self.cst.While)) and loop is self.loop.inner:
                return walk.read_first
            node = block

    def _sources(self, name: str) -> list[Any]:
        """Return what a name is assigned: in the loop's functions, where they assign it; another's may be another."""
        found = sources_of(self.script, name)
        for at in (self.loop.top, self.loop.inner):
            home = function_of(self.script, at)
            own = [one for one in found if function_of(self.script, one) is home]
            if own and "." not in name:
                return own
        return found

    def _made(self, name: str) -> list[str]:
        made = [call_that_makes(one) for one in self._sources(name)]
        return [self.script.path(one.func) for one in made if isinstance(one, self.cst.Call)]

    def _is_variable(self, name: str) -> bool:
        """Tell whether a name that the loop assigns holds something that can go on: no clock, log or iterator."""
        first = name.partition(".")[0]
        if name in self.known or first in self.script.imports or first in self.classes:
            return False
        if name in {one.name.value for one in self.script.all(self.cst.FunctionDef)}:
            return False
        sources, made = self._sources(name), self._made(name)
        clocks = [one for one in made if _CLOCK.search(one)]
        if sources and len(clocks) == len(sources):
            return False
        if any(_LOGS.search(one) for one in made) or any(ENVIRONMENT.search(one) for one in made):
            return False
        return "iter" not in made and not any(one in ("enumerate", "zip", "range", "map") for one in made)

    def _refuse_new_parts(self, name: str, line: int) -> None:
        """Raise UnclearError for an optimizer, a schedule or a loader that the loop makes anew on its way."""
        for one in self._sources(name):
            inside = isinstance(one, self.cst.Call) and any(
                up is self.loop.top for up in self.script.around(one)
            )
            if inside and (_REMADE.search(self.script.path(one.func)) or name in self.known):
                raise UnclearError(
                    f"line {self.script.line(one)} makes {name} anew within the loop, and a resume behind it would go "
                    "on with the one from before the loop"
                )

    def _can_be_kept(self, name: str, top: Any) -> bool:
        """Refuse a variable of the module that functions change, where the loop's function doesn't say so."""
        functions = [one for one in self.script.around(top) if isinstance(one, self.cst.FunctionDef)]
        if not functions or "." in name:
            return True
        home = functions[0]
        shared = {
            item.name.value
            for one in self.script.all(self.cst.Global, home.body, nested=False)
            for item in one.names
        }
        own = name in local_names(self.script, home) | parameters_of(home)
        if not own and name not in shared:
            raise UnclearError(
                f"{name} is a variable of the module that the loop changes from within functions, and "
                f"{home.name.value}() doesn't declare it global"
            )
        return True

    def _changed_objects(self, walk: Walk, before: set[str]) -> list[str]:
        """Return the objects from before the loop whose state it changes. Raises UnclearError."""
        found: list[str] = []
        calls = [(on, method, call) for on, method, call in walk.calls if on.partition(".")[0] in before]
        for on, method, call in calls:
            for name in _prefixes(on):
                if (
                    name in self.known
                    or name.partition(".")[0] in self.script.imports
                    or not self._sources(name)
                ):
                    continue
                if self._changes(name, method, call):
                    found.append(name)
                break
        for name in walk.changed:
            first = next((one for one in _prefixes(name) if self._sources(one)), "")
            if first and name not in walk.written and self._made(first) and not self._keeps_values(first):
                continue
            known = any(one in self.known for one in _prefixes(name))
            if first and not known and first.partition(".")[0] in before and first not in walk.written:
                found.append(first)
        for on, method, _ in calls:  # of one that is held in a list or a dict
            if method == "load_state_dict" and on not in walk.modules and self._sources(on):
                found.append(on)
        for name in walk.read_first:
            if name in before and (
                self._is_module(name) or any(one in _GENERATORS for one in self._made(name))
            ):
                found.append(name)
        return [name for name in dict.fromkeys(found) if name not in self.known]

    def _changes(self, name: str, method: str, call: Any) -> bool:
        script, made = self.script, self._made(name)
        kinds = [self.classes[one] for one in made if one in self.classes]
        if kinds:
            if any(holds_iterator(kind) for kind in kinds) and method != "__len__":
                raise UnclearError(
                    f"line {script.line(call)} calls {name}.{method}(), and {made[0]} holds an open iterator, whose "
                    "place in its data isn't in a checkpoint"
                )
            return any(changes_itself(script, kind, method, self.classes) for kind in kinds)
        if any(_LOGS.search(one) for one in made):
            return False
        if any(ENVIRONMENT.search(one) for one in made):
            raise UnclearError(
                f"{name} is an environment, whose state isn't saved with a checkpoint: a resume would begin it anew"
            )
        if _GIVES_BATCHES.fullmatch(method) and made:
            raise UnclearError(
                f"line {script.line(call)} takes its batches from {name}.{method}(), and where {made[0]} is in its "
                "data isn't known: a resume would start the data over"
            )
        containers = not made or any(one in _CONTAINERS for one in made)
        if GROWS.fullmatch(method) and containers:
            return True
        return bool(made) and bool(COUNTS.fullmatch(method)) and not made[0].startswith("torch.")

    def _is_container(self, name: str) -> bool:
        """Tell whether a variable is brought back as a value: a list, a dict, a tensor, an array."""
        made = self._made(name)
        return not made or any(one in _CONTAINERS or _ARRAYS.search(one) for one in made)

    def _keeps_values(self, name: str) -> bool:
        """Tell whether what changes in a variable can be seen in its value, or its own class says so."""
        known = any(one in self.classes for one in self._made(name))
        return known or self._is_container(name) or self._is_module(name)

    def _is_module(self, name: str) -> bool:
        made = self._made(name)
        if any(one.endswith("deepcopy") for one in made):
            return any(
                dotted(argument.value).removesuffix(".module") in self.names.models
                for one in map(call_that_makes, self._sources(name))
                if isinstance(one, self.cst.Call)
                for argument in one.args
            )
        return any(
            is_kind(self.script, self.classes[one], "Module", self.classes)
            for one in made
            if one in self.classes
        )


def _prefixes(name: str) -> list[str]:
    """Return ``a.b.c``, ``a.b`` and ``a``."""
    parts = name.split(".")
    return [".".join(parts[:number]) for number in range(len(parts), 0, -1)]
