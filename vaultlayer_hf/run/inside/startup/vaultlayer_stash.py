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
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any, NoReturn

    from vaultlayer_hf.run.inside.startup.vaultlayer_environment import own_environment
    from vaultlayer_hf.run.inside.startup.vaultlayer_logs import log

    Registration = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
else:
    from vaultlayer_environment import own_environment
    from vaultlayer_logs import log

UNFIT = 88
"""The exit code of a warm attempt that isn't what a cold start would be. The reason is in its notes."""
_ANNOUNCED = ("vaultlayer_hf.run.inside.hook", "vaultlayer_hf.run.inside.observer")
"""What tells `vl run` that it is in place, once it appears: beforehand there was no attempt to tell of."""
_PASSING = frozenset({"PYTORCH_NVML_BASED_CUDA_CHECK"})
"""What is set around a single call (accelerate's, which asks for GPUs): an import may fall into it."""


class Group:
    """What one import of the script's brought, the imports within it included.

    Attributes:
        name: the module that was asked for.
        environment: variables with which it was imported, without those of `vl run` itself.
        folder: the working directory in which it was imported.
        standard: all of it is of the standard library, to which it is all the same with which variables.
        modules: by name, in sys.modules' order.
        attributes: of packages that had been there before: package, name, value.
        changed: variables that it set, or deleted (None).
        filters_front, filters_back: what it put before and behind the warnings' filters.
        warned: warnings that it gave: message, category, file, line, module.
        exits: functions that it registered with atexit.
        said: what it wrote to stdout and to stderr.
        logged: records that it gave to loggers.
    """

    def __init__(self, name: str, environment: "dict[str, str]") -> None:
        self.name, self.environment, self.folder = name, environment, os.getcwd()
        self.standard = False
        self.modules: dict[str, ModuleType] = {}
        self.attributes: list[tuple[ModuleType, str, Any]] = []
        self.changed: dict[str, str | None] = {}
        self.filters_front: list[Any] = []
        self.filters_back: list[Any] = []
        self.warned: list[tuple[Any, type[Warning], str, int, str]] = []
        self.exits: list[Registration] = []
        self.said = b"", b""
        self.logged: list[Any] = []


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

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """Return a spec whose loader hands the module over; None for what isn't kept, or is only asked about."""
        number = self._where.get(name)
        # importlib.util.find_spec imports nothing: it gets the real answer.
        if number is None or sys._getframe(2).f_code.co_name != "_find_and_load_unlocked":
            return None
        with self._lock:
            if number < self._next:
                return None  # it was handed over, and somebody has deleted it from sys.modules: a real import
            module = self._groups[number].modules[name]
            kept = getattr(module, "__spec__", None)
            loader: Any = _Handover(self, number, module, kept)
            spec: Any = _frozen_importlib.ModuleSpec(name, loader)
            if kept is not None:
                spec.origin, spec.submodule_search_locations = kept.origin, kept.submodule_search_locations
            return spec

    def hand_over(self, number: int) -> None:
        """Let the modules of an import appear, and those of all imports before it, with all that these changed."""
        with self._lock:
            while self._next <= number:
                group = self._groups[self._next]
                if self._next == number and not group.standard and (reason := _differs(group, self._free)):
                    self._unfit(f"{group.name} is imported {reason} than before")
                self._next += 1
                self._appear(group)

    def _appear(self, group: Group) -> None:
        for name, module in group.modules.items():
            if "." not in name:
                self._compare_place(name, module)
            sys.modules.setdefault(name, module)
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

    def _compare_place(self, name: str, module: "ModuleType") -> None:
        """End where this name would be found elsewhere now: a file of the script's folder may have come to hide it."""
        kept = getattr(module, "__spec__", None)
        origin = getattr(kept, "origin", None)
        if origin in (None, "built-in", "frozen"):
            return
        for finder in sys.meta_path:
            spec = finder.find_spec(name, None, None) if finder is not self else None
            if spec is not None:
                if spec.origin != origin:
                    self._unfit(f"{name} is found in {spec.origin} now, and was imported from {origin}")
                return


class _Handover:
    """The loader of one kept module."""

    def __init__(self, stash: Stash, number: int, module: "ModuleType", spec: "Any") -> None:
        self._stash, self._number, self._module, self._spec = stash, number, module, spec

    def create_module(self, spec: "Any") -> "ModuleType":
        """Return the module as it was made."""
        return self._module

    def exec_module(self, module: "ModuleType") -> None:
        """It has run already; what its import changed is done now."""
        try:
            module.__spec__ = self._spec  # importlib has put the handover's there
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
    if _makes_other_tensors():
        return "with another default type or device of tensors"
    return ""


def _makes_other_tensors() -> bool:
    """As sitecustomize.py has it: beforehand torch was as it comes."""
    torch: Any = sys.modules.get("torch")
    if getattr(getattr(torch, "__spec__", None), "_initializing", False):
        return False  # what is half made can't be asked
    if not hasattr(torch, "get_default_dtype"):
        return False
    device = getattr(sys.modules.get("torch.utils._device"), "CURRENT_DEVICE", None)
    return device is not None or str(torch.get_default_dtype()) != "torch.float32"


def unfit(reason: str) -> "NoReturn":
    """End this process: what it has imported isn't what a cold start would have."""
    import json

    line = {"time": time.time(), "kind": "unfit", "reason": reason, "pid": os.getpid()}
    with open(os.path.join(os.environ["VAULTLAYER_RUN_ATTEMPT"], "rank-0.jsonl"), "a") as file:
        file.write(json.dumps(line) + "\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(UNFIT)
