"""Variables and objects that a loop changes beside its model and optimizer, and on which its course may hang.

Each is brought back, or the script is left alone: what was counted, a rate in a variable, a patience, a loader's place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import assignments
from vaultlayer_hf.run.insert.changed_members import Members, changed_ahead, changed_members
from vaultlayer_hf.run.insert.changed_modules import changed_modules, counted_by_modules, prefixes
from vaultlayer_hf.run.insert.defined_before import defined_before
from vaultlayer_hf.run.insert.given import given_to_loop
from vaultlayer_hf.run.insert.kept_files import kept_files
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_limits import ahead, ahead_within, refuse_new_groups
from vaultlayer_hf.run.insert.loop_names import Names
from vaultlayer_hf.run.insert.maybe_set import maybe_set, set_ahead
from vaultlayer_hf.run.insert.named_values import GENERATORS, NamedValues
from vaultlayer_hf.run.insert.of_pass import Kept, find_of_pass
from vaultlayer_hf.run.insert.out_of_sight import refuse_held_elsewhere
from vaultlayer_hf.run.insert.own_classes import GROWS
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.own_resume import moved_starts
from vaultlayer_hf.run.insert.pass_variables import walk_of
from vaultlayer_hf.run.insert.pieces import exclude_each_other, prepares, same_conditions
from vaultlayer_hf.run.insert.read_behind import read_behind
from vaultlayer_hf.run.insert.saved_states import kept_by_hooks
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.switched import is_begun, switched
from vaultlayer_hf.run.insert.walk import Walk, local_names

_REMADE = re.compile(r"(?:^torch\.optim\b(?!.*swa)|DataLoader$|lr_scheduler\.|(?:^|\.)GradScaler$)")


@dataclass
class Variables:
    """What a loop's edit brings back beside the objects of ``Names``.

    Attributes:
        loop: names that go from one round of the outermost loop to the next, or behind it.
        objects: names of what the loop changes in place: a random generator, an object of a class of the script's own.
        in_pass: names that go from one batch to the next, within one pass.
        unset: of both, those that nothing sets before.
        gone: of both, those that something sets before, and something else may delete.
        left: names that only a pass sets, and the code behind it reads: a resume may have no batch left that sets them.
        models: further modules whose state the loop changes.
        reset: of ``objects``, those that each epoch resets ahead of its batches.
        again: (key, code) of what the code ahead of an epoch's batches may change of optimizers and schedules.
        maybe: of all these, those that are set only under a condition, and the statement that does it first.
        files: the code of the paths of files that the loop writes, and that are read behind it.
        members: lists and dicts whose objects the loop changes one by one.
        again_members: of these, those whose objects an epoch changes ahead of its batches.
        contents: of lists, dicts and the like which the loop's function was given: what they hold comes back.
    """

    loop: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    in_pass: list[str] = field(default_factory=list)
    unset: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    reset: list[str] = field(default_factory=list)
    again: list[tuple[str, str]] = field(default_factory=list)
    maybe: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    members: list[Members] = field(default_factory=list)
    again_members: list[Members] = field(default_factory=list)


def find_variables(script: Script, loop: Loop, names: Names, known: set[str]) -> Variables:
    """Return what is to be brought back; ``known``: objects that are taken care of. Raises UnclearError."""
    return _Finder(script, loop, names, known).find()


def _deletes(node: Any) -> list[Any]:
    target = node.target
    return [one.value for one in target.elements] if isinstance(target, cst.Tuple) else [target]


def _bound(targets: Any) -> list[Any]:
    """Return what an assignment binds, one by one."""
    kinds = (cst.Tuple, cst.List)
    return [
        part
        for one in targets
        for part in ([each.value for each in one.elements] if isinstance(one, kinds) else [one])
    ]


class _Finder:
    def __init__(self, script: Script, loop: Loop, names: Names, known: set[str]) -> None:
        self.script, self.loop, self.names = script, loop, names
        self.known = known
        self.named = NamedValues(script, loop, names, known)

    def find(self) -> Variables:
        script, loop = self.script, self.loop
        top = loop.top
        surely, maybe = defined_before(script, top), maybe_set(script, top)
        before = surely | set(maybe)
        walk = walk_of(script, top)
        self._refuse_changed_samplers(walk)
        found = Variables()
        behind = read_behind(script, loop, top)
        for name, line in walk.written.items():
            if name in self.names.tensors:
                raise UnclearError(
                    f"line {line} makes {name} anew within the loop, and the optimizer goes on with the one from before"
                )
            if name in walk.read_first or name in behind:
                self._refuse_new_parts(name, line)
                lasts = self.named.is_variable(name) and not self._is_deleted(name)
                if lasts and self._can_be_kept(name, top):
                    found.loop.append(name)
                    if "." not in name and name not in before:
                        (found.gone if name in set_ahead(script, top) else found.unset).add(name)
                    elif name not in walk.read_first and not is_begun(self.named, name):
                        found.unset.add(name)
        if isinstance(top, cst.For):
            found.loop += [
                name
                for name in moved_starts(script, top, self.named.sources)
                if self.named.is_variable(name) and name not in found.loop
            ]
        given = given_to_loop(self.named, walk)
        found.contents, found.objects = given.containers, given.objects
        modules = changed_modules(self.named, walk, before)
        found.models += modules
        for name in self._changed_objects(walk, before):
            if name in modules or name in (*given.containers, *given.objects):
                continue
            if "." in name and name in walk.written and name not in {*walk.read_first, *behind}:
                continue  # each round begins it itself
            if self.named.is_module(name):
                found.models.append(name)
            elif self.named.is_container(name):
                if self._can_be_kept(name, top):
                    found.loop.append(name)
            elif name not in found.loop:
                found.objects.append(name)
        hooked = kept_by_hooks(script)
        found.objects = [name for name in found.objects if name not in hooked]
        found.models = [name for name in dict.fromkeys(found.models) if name not in self.known | hooked]
        found.loop = [name for name in dict.fromkeys(found.loop) if name not in self.known]
        there = {*found.loop, *found.objects, *found.models, *found.contents, *self.known}
        found.objects += [name for name in dict.fromkeys(self.names.unseen) if name not in there | hooked]
        found.loop += [name for name in counted_by_modules(self.named, walk) if name not in found.loop]
        there = {*found.loop, *behind, *walk.read_first}
        flags, unset = switched(self.named, walk, there, found.objects, before)
        found.loop += flags
        found.unset |= unset
        found.members = changed_members(self.named, before)
        refuse_held_elsewhere(script, loop, walk, found.loop)
        refuse_new_groups(script, loop, walk, bool(self.names.accelerator))
        found.files = kept_files(script, loop, walk)
        if loop.outer is not None:
            first = [*ahead(script, loop), *ahead_within(script, loop)]
            found.again_members = changed_ahead(self.named, first, found.members)
            found.again_members += [
                one for one in found.members if one.of_pass and one not in found.again_members
            ]
            kept = Kept(found.loop, found.objects, [*found.models, *found.contents], found.unset)
            of_pass = find_of_pass(self.named, kept, walk)
            found.reset, found.again = of_pass.reset, of_pass.again
            found.in_pass, found.left = of_pass.in_pass, of_pass.left
        found.again_members = [one for one in found.again_members if one.name not in found.in_pass]
        found.members = [one for one in found.members if not one.of_pass and one.name not in found.loop]
        for name in self.names.of_pass:
            if name not in found.in_pass:
                raise UnclearError(
                    f"{name} isn't known in line {self.script.line(top)}, where its loop starts"
                )
        for name in (*found.loop, *found.objects, *found.models):
            if name in maybe and name not in surely:
                found.maybe[name] = maybe[name]
        maybe, surely = (
            maybe_set(script, loop.inner),
            defined_before(script, loop.inner) | found.unset | found.gone,
        )
        for name in found.in_pass:
            if name in maybe and name not in surely:
                found.maybe.setdefault(name, maybe[name])
        return found

    def _refuse_changed_samplers(self, walk: Walk) -> None:
        """Raise UnclearError for an attribute of torch's samplers and loaders that the loop sets."""
        for name, line in walk.written.items():
            owner = name.rpartition(".")[0]
            if owner and any(one.startswith("torch.utils.data.") for one in self.named.made(owner)):
                raise UnclearError(
                    f"line {line} changes {name} within the loop, which a checkpoint hasn't got: torch's samplers and "
                    "loaders don't keep it"
                )

    def _refuse_new_parts(self, name: str, line: int) -> None:
        """Raise UnclearError for an optimizer, a schedule or a loader that the loop makes anew on its way."""
        given = [call for call in prepares(self.script) if name in {dotted(one.value) for one in call.args}]
        for one in self.named.sources(name):
            inside = isinstance(one, cst.Call) and any(up is self.loop.top for up in self.script.around(one))
            if inside and given and all(exclude_each_other(self.script, one, call) for call in given):
                continue  # where it is trained, it isn't made anew
            if inside and (_REMADE.search(self.script.path(one.func)) or name in self.known):
                raise UnclearError(
                    f"line {self.script.line(one)} makes {name} anew within the loop, and a resume after it would go "
                    "on with the one from before the loop"
                )

    def _is_deleted(self, name: str) -> bool:
        """Tell whether the loop deletes a name wherever it has set it. Raises UnclearError where it may stay, too."""
        script, top = self.script, self.loop.top
        deleted = [one for one in script.all(cst.Del, top) if name in map(dotted, _deletes(one))]
        made = [one.node for one in assignments(script, top) if name in map(dotted, _bound(one.targets))]
        for one in made if deleted else ():
            later = [at for at in deleted if script.span(at)[0] > script.span(one)[0]]
            if not any(same_conditions(script, one, at) for at in later):
                raise UnclearError(
                    f"line {script.line(deleted[0])} deletes {name} within the loop, and a later round may read it"
                )
        return bool(deleted) and bool(made)

    def _can_be_kept(self, name: str, top: Any) -> bool:
        """Refuse a variable of the module that functions change, where the loop's function doesn't say so."""
        functions = [one for one in self.script.around(top) if isinstance(one, cst.FunctionDef)]
        if not functions or "." in name:
            return True
        home = functions[0]
        shared = {
            item.name.value
            for one in self.script.all(cst.Global, home.body, nested=False)
            for item in one.names
        }
        own = name in local_names(self.script, home) | parameters_of(home)
        if not own and name not in shared:
            raise UnclearError(
                f"{name} is a variable of the module that the loop changes from within functions, and "
                f"{home.name.value}() doesn't declare it global"
            )
        return True

    def _is_own_module(self, name: str) -> bool:
        """Tell whether an attribute is a module that is no part of what a checkpoint has anyway."""
        held = any(one in self.known for one in prefixes(name))
        return "." in name and not held and self.named.is_module(name)

    def _changed_objects(self, walk: Walk, before: set[str]) -> list[str]:
        """Return the objects from before the loop whose state it changes. Raises UnclearError."""
        found: list[str] = []
        calls = [(on, method, call) for on, method, call in walk.calls if on.partition(".")[0] in before]
        for on, method, call in calls:
            owner, _, attribute = on.rpartition(".")
            if owner and GROWS.fullmatch(method) and self.named.holds_container(owner, attribute):
                found.append(on)
                continue
            for name in prefixes(on):
                if (
                    name in self.known
                    or name.partition(".")[0] in self.script.imports
                    or not self.named.sources(name)
                ):
                    continue
                if self.named.changes(name, method, call):
                    found.append(name)
                break
        for name in walk.changed:
            first = next((one for one in prefixes(name) if self.named.sources(one)), "")
            if (
                first
                and name not in walk.written
                and self.named.made(first)
                and not self.named.keeps_values(first)
            ):
                continue
            known = any(one in self.known for one in prefixes(name))
            if first and not known and first.partition(".")[0] in before and first not in walk.written:
                found.append(first)
        # self.norm(x): whoever has it as a plain variable is found by its name below.
        found += [on for on, method, _ in calls if method == "__call__" and self._is_own_module(on)]
        for on, method, _ in calls:  # of one that is held in a list or a dict
            if method == "load_state_dict" and on not in walk.modules and self.named.sources(on):
                found.append(on)
        for name in walk.read_first:
            draws = any(one in GENERATORS for one in self.named.made(name))
            held = draws and name.partition(".")[0] in before  # self.rng
            if held or (name in before and (self.named.is_module(name) or self.named.changes_unasked(name))):
                found.append(name)
        return [name for name in dict.fromkeys(found) if name not in self.known]
