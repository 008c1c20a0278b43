"""A spare interpreter, from inside: it imports what the attempt before had imported, and waits for its turn.

Called by startup/sitecustomize.py, in a process that was started with the very command of an attempt. Python's start
stands still meanwhile: once the turn has come, ``wait_for_turn`` returns, and Python goes on as in any process to read
the script, set up ``__main__``, ``sys.argv`` and ``sys.path``, and run it. Nothing of that is imitated here.

Only modules of the standard library, of site-packages and of this package are imported, never one of the user's own. An
import that changes what can't be taken back (random numbers, signal handlers, the root logger, a GPU that is opened)
ends the spare, and `vl run` starts another that comes to wait before that import.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import vaultlayer_hf
from vaultlayer_hf.run.imports import Item, is_own_variable
from vaultlayer_hf.run.inside.stash import Group, Registration, Stash, own_environment

_NEVER = frozenset({"deepspeed", "bitsandbytes", "vllm", "pynvml", "cupy", "jax", "tensorflow"})
"""Packages that look for a GPU, build extensions or start processes while they are imported."""
_GPU = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/accel")


def wait_for_turn(known: set[str], handles: str) -> None:
    """Import what the instructions name, tell `vl run`, and return when this process is to become an attempt.

    Args:
        known: names in sys.modules at the start, before this module was imported.
        handles: descriptors of the socket to `vl run` and of the instructions, separated by a comma.
    """
    control, instructions = (int(text) for text in handles.split(","))
    with os.fdopen(instructions, "rb") as file:
        items: list[Item] = [(kind, what) for kind, what in json.load(file)]
    line = socket.socket(fileno=control)
    for name in [name for name in os.environ if name.startswith("VAULTLAYER_RUN_")]:
        del os.environ[name]
    begin = time.monotonic()
    groups = _Preloader(known, line).run(items)
    files = {path: _mark(path) for group in groups for path in _files(group)}
    gc.collect()
    _tell(line, ready=True, seconds=time.monotonic() - begin, modules=sum(len(one.modules) for one in groups))
    order = _receive(line)
    changed = next((path for path, mark in files.items() if _mark(path) != mark), None)
    if changed is not None:
        _tell(line, reason=f"{changed} has changed")
        os._exit(0)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.meta_path.insert(1, Stash(groups))  # type: ignore[arg-type]  # behind the hook's
    _tell(line, gone=True)
    line.close()


class _Preloader:
    """Imports one thing after the other, and keeps what each has changed."""

    def __init__(self, known: set[str], line: socket.socket) -> None:
        self._known, self._line = known, line
        self._number = 0
        self._standard = os.path.dirname(os.__file__) + os.sep
        self._ours = os.path.dirname(os.path.abspath(vaultlayer_hf.__file__)) + os.sep

    def run(self, items: Sequence[Item]) -> list[Group]:
        """Import all of it; return what came of it, hidden again."""
        environment, path = dict(os.environ), list(sys.path)
        wanted, groups = dict(environment), [Group("", own_environment())]
        first = groups[0]
        guard = _Guard(self)
        sys.meta_path.insert(1, guard)  # type: ignore[arg-type]
        with _kept_output() as output, _kept_exits() as exits:
            for self._number, (kind, what) in enumerate(items):
                if kind == "e":
                    name, value = what
                    if value is None:
                        wanted.pop(name, None)
                    else:
                        wanted[name] = value
                elif kind == "p":
                    sys.path[:] = what
                elif kind == "i" and self._is_to_be_imported(guard, what):
                    _become(wanted)
                    groups.append(self._import(what, output, exits))
            sys.path[:] = path
            _become(environment)
        sys.meta_path.remove(guard)  # type: ignore[arg-type]
        taken = {name for group in groups for name in group.modules}
        first.modules = {
            name: one for name, one in sys.modules.items() if name not in self._known and name not in taken
        }
        self._hide(groups)
        return groups

    def _is_to_be_imported(self, guard: _Guard, name: str) -> bool:
        parent, _, _ = name.rpartition(".")
        if name in sys.modules or name.partition(".")[0] in _NEVER:
            return False
        if parent and not hasattr(sys.modules.get(parent), "__path__"):
            return False
        spec = guard.look(name, sys.modules[parent].__path__ if parent else None)
        return spec is not None and self.is_allowed(spec)

    def is_allowed(self, spec: Any) -> bool:
        """Tell whether a module is the standard library's, of site-packages, or of this package."""
        if spec.origin in ("built-in", "frozen"):
            return True
        places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
        return all(
            place.startswith((self._standard, self._ours)) or "-packages" + os.sep in place for place in places
        )

    def cut(self, reason: str) -> NoReturn:
        """End here, and have the next spare wait before the import that is under way."""
        _tell(self._line, cut=self._number, reason=reason)
        os._exit(0)

    def _import(self, name: str, output: _Output, exits: list[Registration]) -> Group:
        group = Group(name, own_environment())
        modules, surroundings = set(sys.modules), _surroundings()
        filters = list(warnings.filters)

        def note(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
            module = next(
                (one for one, had in list(sys.modules.items()) if getattr(had, "__file__", None) == filename), ""
            )
            group.warned.append((message, category, filename, lineno, module))

        usual, warnings.showwarning = warnings.showwarning, note  # type: ignore[assignment]
        try:
            importlib.import_module(name)
        except Exception:
            pass  # as it would be in the script, which has gone on then
        finally:
            if warnings.showwarning is not note:
                self.cut(f"{name} redirects warnings")
            warnings.showwarning = usual
        after = _surroundings()
        for what in surroundings:
            if after.get(what) != surroundings[what]:
                self.cut(f"{name} changes {what}")
        now = own_environment()
        group.changed = {
            key: now.get(key)
            for key in {*now, *group.environment}
            if now.get(key) != group.environment.get(key)
        }
        group.modules = {one: had for one, had in sys.modules.items() if one not in modules}
        self._keep_filters(group, filters)
        group.exits, exits[:] = list(exits), []
        group.said = output.taken()
        return group

    def _keep_filters(self, group: Group, before: list[Any]) -> None:
        now, count = list(warnings.filters), len(before)
        front = next((at for at in range(len(now) - count + 1) if now[at : at + count] == before), None)
        if front is None:
            self.cut(f"{group.name} takes filters of warnings away")
        group.filters_front, group.filters_back = now[:front], now[front + count :]
        # They stay in force here, so that later imports warn as they would; taken back in _hide.

    def _hide(self, groups: Sequence[Group]) -> None:
        for group in groups:
            for name, module in group.modules.items():
                sys.modules.pop(name, None)
                parent, _, child = name.rpartition(".")
                package = sys.modules.get(parent) if parent in self._known else None
                if package is not None and package.__dict__.get(child) is module:
                    group.attributes.append((package, child, module))
        for group in groups:
            for package, child, _ in group.attributes:
                package.__dict__.pop(child, None)
        count = sum(len(group.filters_front) for group in groups)
        behind = sum(len(group.filters_back) for group in groups)
        warnings.filters[:] = list(warnings.filters)[count : len(warnings.filters) - behind]  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]


class _Guard:
    """Finds modules as all finders behind it do, and ends the spare before it would run one of the user's own."""

    def __init__(self, preloader: _Preloader) -> None:
        self._preloader = preloader

    def look(self, name: str, path: Any, target: Any = None) -> Any:
        """Return what the finders behind this one find; None where they find nothing."""
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:  # type: ignore[arg-type]
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return spec
        return None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find a module that is imported, or asked about."""
        spec = self.look(name, path, target)
        if spec is not None and sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
            if name in _NEVER:
                self._preloader.cut(f"{name} isn't imported beforehand")
            if not self._preloader.is_allowed(spec):
                self._preloader.cut(f"{name} is of a folder of your own")
        return spec


class _Output:
    """What goes to stdout and stderr, kept in memory."""

    def __init__(self) -> None:
        self.files = [os.memfd_create("vl-output") for _ in range(2)]

    def taken(self) -> tuple[bytes, bytes]:
        """Return what has come since the last call."""
        sys.stdout.flush()
        sys.stderr.flush()
        found = []
        for file in self.files:
            size = os.lseek(file, 0, os.SEEK_END)
            found.append(os.pread(file, size, 0))
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
        return found[0], found[1]


@contextlib.contextmanager
def _kept_output() -> Iterator[_Output]:
    output = _Output()
    usual = [os.dup(descriptor) for descriptor in (1, 2)]
    for file, descriptor in zip(output.files, (1, 2), strict=True):
        os.dup2(file, descriptor)
    try:
        yield output
    finally:
        for had, descriptor in zip(usual, (1, 2), strict=True):
            os.dup2(had, descriptor)
        for file in (*usual, *output.files):
            os.close(file)


@contextlib.contextmanager
def _kept_exits() -> Iterator[list[Registration]]:
    """Have functions for the end of the process kept instead of registered."""
    kept: list[Registration] = []
    keeping = True
    register, unregister = atexit.register, atexit.unregister

    def keep(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        if not keeping:  # a library has taken this function's name for itself
            return register(function, *args, **kwargs)
        kept.append((function, args, kwargs))
        return function

    def drop(function: Callable[..., Any], /) -> None:
        kept[:] = [one for one in kept if one[0] != function]
        unregister(function)

    atexit.register, atexit.unregister = keep, drop
    try:
        yield kept
    finally:
        atexit.register, atexit.unregister = register, unregister
        keeping = False


def _surroundings() -> dict[str, Any]:
    """Return what an import must leave as it is: done beforehand, it would come before what the script does first."""
    modules = sys.modules
    found: dict[str, Any] = {
        "the working directory": os.getcwd(),
        "sys.path": list(sys.path),
        "signal handlers": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "stdout or stderr": (sys.stdout, sys.stderr),
        "the hook for uncaught exceptions": sys.excepthook,
        "the recursion limit": sys.getrecursionlimit(),
        "random numbers": random.getstate(),
        "child processes": _children(),
        "a GPU": _opens_gpu(),
    }
    # What isn't there yet comes with the import, as it would in a cold start.
    if (numpy := modules.get("numpy.random")) is not None and hasattr(numpy, "get_state"):
        found["numpy's random numbers"] = repr(numpy.get_state(legacy=False))
    if (torch := modules.get("torch")) is not None and hasattr(torch, "default_generator"):
        found["torch's random numbers"] = torch.default_generator.get_state().tolist()
        found["torch's settings"] = (torch.get_default_dtype(), torch.is_grad_enabled())
    if (logging := modules.get("logging")) is not None:
        root = logging.root
        found["the root logger"] = (list(root.handlers), root.level, root.manager.disable)
    return found


def _children() -> list[str]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return file.read().split()
    except OSError:
        return []


def _opens_gpu() -> bool:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(_GPU):
                return True
    return False


def _become(environment: dict[str, str]) -> None:
    """Change os.environ to this, but for the variables of `vl run`."""
    for name in [name for name in os.environ if name not in environment and not is_own_variable(name)]:
        del os.environ[name]
    for name, value in environment.items():
        if not is_own_variable(name) and os.environ.get(name) != value:
            os.environ[name] = value


def _files(group: Group) -> Iterator[str]:
    for module in group.modules.values():
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str):
            yield file


def _mark(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _tell(line: socket.socket, **fields: Any) -> None:
    line.sendall(json.dumps(fields).encode() + b"\n")


def _receive(line: socket.socket) -> dict[str, Any]:
    """Wait for the order to go; `vl run` that is gone ends the spare."""
    data = b""
    while not data.endswith(b"\n"):
        got = line.recv(65536)
        if not got:
            os._exit(0)
        data += got
    found: dict[str, Any] = json.loads(data)
    return found
