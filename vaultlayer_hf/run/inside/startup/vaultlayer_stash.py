"""Modules that a spare interpreter has imported beforehand, kept out of sight until the script imports them.

A script can look at ``sys.modules``, set an environment variable before it imports a library, or filter warnings first.
So what an import has changed is taken back after it and kept with its modules, and is done again, in an instant, when
the script comes to that import: the modules appear, the environment and the warnings' filters change, what the import
had to say is said, its exit functions are registered.

What was imported beforehand is right only where a cold start would have imported the same in the same surroundings.
Each import of the script's is compared with that; where it differs, the process ends at once (``UNFIT``) and `vl run`
starts the attempt cold. That is allowed at any time: a script under `vl run` is one that may die and be started again.
"""

import _frozen_importlib
import _thread
import atexit
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any, NoReturn

    from vaultlayer_hf.run.inside.startup.vaultlayer_environment import own_environment
    from vaultlayer_hf.run.inside.startup.vaultlayer_finders import put_in
    from vaultlayer_hf.run.inside.startup.vaultlayer_group import Group
    from vaultlayer_hf.run.inside.startup.vaultlayer_logs import log
    from vaultlayer_hf.run.inside.startup.vaultlayer_looks import how_differs, looks, makes_other_tensors

else:
    from vaultlayer_environment import own_environment
    from vaultlayer_finders import put_in
    from vaultlayer_group import Group
    from vaultlayer_logs import log
    from vaultlayer_looks import how_differs, looks, makes_other_tensors

_MISSING: "Any" = object()
_NAMED = ("__spec__", "__loader__", "__package__", "__file__", "__cached__", "__path__")
"""What importlib gives a module, where it has none."""
UNFIT = 88
"""The exit code of a warm attempt that isn't what a cold start would be. The reason is in its notes."""
_ANNOUNCED = ("vaultlayer_hf.run.inside.hook", "vaultlayer_hf.run.inside.observer")
"""What tells `vl run` that it is in place, once it appears: beforehand there was no attempt to tell of."""
_PASSING = frozenset({"PYTORCH_NVML_BASED_CUDA_CHECK"})
"""What is set around a single call (accelerate's, which asks for GPUs): an import may fall into it."""


class Stash:
    """A finder (sys.meta_path) that hands over what was imported beforehand.

    Args:
        groups: what was imported.
        free: variables that may differ from what they were then, since no import has read them.
        socket: a file to delete where this process turns out to be unfit, so that no other starts as it did.
    """

    def __init__(
        self, groups: "Sequence[Group]", free: "frozenset[str]" = frozenset(), socket: str = ""
    ) -> None:
        self._groups, self._free, self._socket = list(groups), free, socket
        self._next = 0
        self._where = {name: number for number, group in enumerate(groups) for name in group.modules}
        self._lock = _thread.RLock()
        self._pid = os.getpid()
        self._finders = [*sys.meta_path, *(one for group in groups for _, _, one in group.finders)]

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """Return a spec whose loader hands the module over; None for what isn't kept, or is only asked about."""
        number = self._where.get(name)
        # importlib.util.find_spec imports nothing: it gets the real answer.
        if number is None or sys._getframe(2).f_code.co_name != "_find_and_load_unlocked":
            return None
        with self._lock:
            if number < self._next:
                return None  # it was handed over, and somebody has deleted it from sys.modules: a real import
            if reason := self._why_unfit(number):
                # Nothing is handed over any more: the end imports, too, and a forked process does so for itself.
                self._next = len(self._groups)
                if os.getpid() == self._pid:
                    self._unfit(reason)
                return None
            module = self._groups[number].modules[name]
            kept = getattr(module, "__spec__", None)
            loader: Any = _Handover(self, number, module)
            spec: Any = _frozen_importlib.ModuleSpec(name, loader)
            if kept is not None:
                spec.origin, spec.submodule_search_locations = kept.origin, kept.submodule_search_locations
            return spec

    def hand_over(self, number: int) -> None:
        """Let the modules of an import appear, and those of all imports before it, with all that these changed."""
        with self._lock:
            while self._next <= number:
                self._next += 1
                self._appear(self._groups[self._next - 1])

    def _why_unfit(self, number: int) -> str:
        """Return why what would be handed over isn't what a cold start would have; empty: it is."""
        last = self._groups[number]
        if not last.standard and (reason := _differs(last, self._free)):
            return f"{last.name} is imported {reason} than before"
        own = [one for one in sys.meta_path if one is not self and one not in self._finders]
        for group in self._groups[self._next : number + 1]:
            for name, module in group.modules.items():
                # None keeps a module from being imported, and anything may stand for one.
                if sys.modules.get(name, module) is not module:
                    return f"the script has put something else in the place of {name}"
                if reason := self._why_elsewhere(name, module, own):
                    return reason
            for name in group.missing:
                if name in sys.modules and name not in self._where:
                    return f"{name} is there now, and {group.name} hadn't found it"
        return ""

    def _appear(self, group: Group) -> None:
        for name, module in group.modules.items():
            sys.modules.setdefault(name, module)
        for name, other in group.replaced.items():
            if other is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = other
        put_in(group.finders)
        for package, attribute, value in group.attributes:
            package.__dict__.setdefault(attribute, value)  # the script may have put something there meanwhile
        for variable, value in group.changed.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
        if group.filters_front or group.filters_back:
            warnings: Any = sys.modules["warnings"]
            warnings.filters[:] = [*group.filters_front, *warnings.filters, *group.filters_back]
            warnings._filters_mutated()
        for function, args, kwargs in group.exits:
            atexit.register(function, *args, **kwargs)
        for descriptor, text, stream in zip((1, 2), group.said, (sys.stdout, sys.stderr), strict=True):
            if text:
                stream.flush()
                os.write(descriptor, text)
        if group.settles is not None and group.settles._actual_context is None:
            group.settles._actual_context = group.settles._default_context
        for change in group.loggers:
            change.do_again()
        for moment in group.moments:
            moment.renew()
        log(group.logged)
        for message, category, file, line, module_name in group.warned:
            sys.modules["warnings"].warn_explicit(message, category, file, line, module_name)
        for name in _ANNOUNCED:
            if name in group.modules:
                group.modules[name].announce()

    def _unfit(self, reason: str) -> "NoReturn":
        if self._socket:
            try:
                os.unlink(self._socket)
            except FileNotFoundError:
                pass
        unfit(reason)

    def _why_elsewhere(self, name: str, module: "ModuleType", own: "list[Any]") -> str:
        """Tell where this name would be found elsewhere now: a file of the script's folder may have come to hide it.

        Or by one of the script's ``own`` finders, such as one that checks the types of what it loads.
        """
        kept = getattr(module, "__spec__", None)
        origin = getattr(kept, "origin", None)
        if origin in (None, "built-in", "frozen"):
            return ""
        parent, _, _ = name.rpartition(".")
        if own:
            path = getattr(self._kept(parent), "__path__", None) if parent else None
            if any(finder.find_spec(name, path, None) is not None for finder in own):
                return f"{name} is found by a finder of the script's own now"
        for finder in sys.meta_path if not parent else ():  # a package's modules lie where it lies
            spec = finder.find_spec(name, None, None) if finder is not self and finder not in own else None
            if spec is not None:
                return (
                    ""
                    if spec.origin == origin
                    else (f"{name} is found in {spec.origin} now, and was imported from {origin}")
                )
        return ""

    def _kept(self, name: str) -> "ModuleType | None":
        number = self._where.get(name)
        return sys.modules.get(name) if number is None else self._groups[number].modules[name]


class _Handover:
    """The loader of one kept module."""

    def __init__(self, stash: Stash, number: int, module: "ModuleType") -> None:
        self._stash, self._number, self._module = stash, number, module
        namespace = getattr(module, "__dict__", {})
        self._named = {name: namespace.get(name, _MISSING) for name in _NAMED}

    def create_module(self, spec: "Any") -> "ModuleType":
        """Return the module as it was made."""
        return self._module

    def exec_module(self, module: "ModuleType") -> None:
        """It has run already; what its import changed is done now."""
        for name, had in self._named.items():  # importlib has put the handover's there
            try:
                if had is not _MISSING:
                    setattr(module, name, had)
                elif name in getattr(module, "__dict__", {}):
                    delattr(module, name)
            except AttributeError:
                pass  # an object that stands for a module, and takes none
        self._stash.hand_over(self._number)


class Given:
    """The loader of a module that is there already."""

    def __init__(self, module: "ModuleType") -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: "Any") -> "ModuleType":
        """Return it."""
        return self._module

    def exec_module(self, module: "ModuleType") -> None:
        """It has run already."""
        module.__spec__ = self._spec


def _differs(group: Group, free: "frozenset[str]") -> str:
    """Return in what an import's surroundings differ from those in which it was done beforehand; empty: in nothing."""
    now = own_environment()
    names = {*now, *group.environment} - free - _PASSING
    names = {name for name in names if now.get(name) != group.environment.get(name)}
    if names:
        return f"with another {', '.join(sorted(names))} in the environment"
    try:
        if os.getcwd() != group.folder:
            return "in another working directory"
    except FileNotFoundError:
        return "in another working directory"
    if reason := how_differs(group.looks, looks()):
        return reason
    if makes_other_tensors():  # a spare imports with torch as it comes
        return "with another default type or device of tensors"
    return ""


def unfit(reason: str) -> "NoReturn":
    """End this process: what it has imported isn't what a cold start would have."""
    import json

    line = {"time": time.time(), "kind": "unfit", "reason": reason, "pid": os.getpid()}
    with open(os.path.join(os.environ["VAULTLAYER_RUN_ATTEMPT"], "rank-0.jsonl"), "a") as file:
        file.write(json.dumps(line) + "\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(UNFIT)
