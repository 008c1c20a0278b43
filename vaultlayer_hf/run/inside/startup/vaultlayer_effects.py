"""What an import changes beside the modules that it brings: its output, and what can't be taken back."""

import _locale
import builtins
import faulthandler
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_GPU = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/accel")


class Output:
    """Keeps what goes to stdout and stderr in memory."""

    def __init__(self) -> None:
        self._usual = [os.dup(descriptor) for descriptor in (1, 2)]
        self._files = [os.memfd_create("vl-output") for _ in range(2)]
        for file, descriptor in zip(self._files, (1, 2), strict=True):
            os.dup2(file, descriptor)

    def taken(self) -> "tuple[bytes, bytes]":
        """Return what has come since the last call."""
        sys.stdout.flush()
        sys.stderr.flush()
        found = []
        for file in self._files:
            found.append(os.pread(file, os.lseek(file, 0, os.SEEK_END), 0))
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
        return found[0], found[1]

    def end(self) -> None:
        """Keep no more."""
        for had, descriptor in zip(self._usual, (1, 2), strict=True):
            os.dup2(had, descriptor)
        for file in (*self._usual, *self._files):
            os.close(file)


class Packages:
    """Finds what has appeared in packages that were there before: a submodule, or a name that is made when needed.

    While it is to be seen there, `from package import name` imports nothing. So for the names that Python itself has.
    """

    def __init__(self, modules: "Iterable[Any]") -> None:
        self._known: list[tuple[Any, set[str]]] = []
        self.new(modules)

    def new(self, modules: "Iterable[Any]") -> "list[tuple[Any, str, Any]]":
        """Return package, name and value of what has appeared since the last call; and know these modules, too."""
        found: list[tuple[Any, str, Any]] = []
        for package, names in self._known:
            if len(package.__dict__) != len(names):
                new = [name for name in package.__dict__ if name not in names]
                found += [(package, name, package.__dict__[name]) for name in new]
                names.update(new)
        packages = [one for one in modules if one is builtins or "__path__" in getattr(one, "__dict__", ())]
        self._known += [(package, set(package.__dict__)) for package in packages]
        return found


def start_method() -> "Any":
    """Return what holds multiprocessing's start method as ``_actual_context``; None where it isn't imported.

    Whoever makes a lock at its import settles it, and a script that sets one later is refused.
    """
    return getattr(sys.modules.get("multiprocessing.context"), "_default_context", None)


def surroundings() -> "dict[str, Any]":
    """Return what an import must leave as it is: done beforehand, it would come before what the script does first."""
    modules, signals = sys.modules, sys.modules["_signal"]  # built in: signal itself imports enum
    had, get = os.umask(0), modules.get
    os.umask(had)
    found: dict[str, Any] = {
        "the working directory": os.getcwd(),
        "sys.path": list(sys.path),
        "signal handlers": [signals.getsignal(number) for number in signals.valid_signals()],
        "stdout or stderr": (sys.stdout, sys.stderr),
        "the hook for uncaught exceptions": (sys.excepthook, sys.unraisablehook),
        "the hook for shown values": sys.displayhook,
        "how calls are traced": (sys.gettrace(), sys.getprofile()),
        "the recursion limit": sys.getrecursionlimit(),
        "the switch interval": sys.getswitchinterval(),
        "garbage collection": (
            gc.isenabled(),
            gc.get_threshold(),
            gc.get_debug(),
            list(map(id, gc.callbacks)),
        ),
        "the umask": had,
        "the locale": _locale.setlocale(_locale.LC_ALL),
        "the fault handler": faulthandler.is_enabled(),
        "the process's limits": _text("/proc/self/limits"),
        "the cores that it runs on": os.sched_getaffinity(0),
        "child processes": _children(),
        "a GPU": _opens_gpu(),
        "threads": len(getattr(get("threading"), "_active", (0,))),  # Python's own: the main one at first
    }
    # What isn't there yet comes with the import, as it would in a cold start.
    for module, what, ask in _ASKED:
        if (there := get(module)) is not None and (value := _value_of(there, ask)) is not None:
            found[what] = value
    return found


_BUILTINS = tuple(builtins.__dict__)
_OF_TORCH = (
    "_get_deterministic_algorithms",
    "_get_cudnn_benchmark",
    "_get_cudnn_deterministic",
    "_get_cudnn_allow_tf32",
    "_get_cublas_allow_tf32",
    "_get_float32_matmul_precision",
)
_ASKED: "tuple[tuple[str, str, Any], ...]" = (
    ("builtins", "a builtin", lambda it: [id(it.__dict__.get(name)) for name in _BUILTINS]),
    ("random", "random numbers", lambda it: it.getstate()),
    ("numpy.random", "numpy's random numbers", lambda it: repr(it.get_state(legacy=False))),
    ("numpy", "numpy's settings", lambda it: (it.geterr(), it.geterrcall(), it.get_printoptions())),
    ("torch", "torch's random numbers", lambda it: it.default_generator.get_state().tolist()),
    ("torch", "torch's settings", lambda it: (it.get_default_dtype(), it.is_grad_enabled())),
    (
        "torch._C",
        "torch's settings for speed",
        lambda it: [getattr(it, name)() for name in _OF_TORCH if hasattr(it, name)],
    ),
    (
        "logging",
        "the root logger",
        lambda it: (list(it.root.handlers), it.root.level, it.root.manager.disable, list(it.root.filters)),
    ),
    (
        "logging",
        "how loggers are made",
        lambda it: (it.getLoggerClass(), it.getLogRecordFactory(), it.lastResort, it.raiseExceptions),
    ),
    ("threading", "the hook for uncaught exceptions of threads", lambda it: it.excepthook),
    ("socket", "the timeout of sockets", lambda it: it.getdefaulttimeout() or 0),
    (
        "multiprocessing.context",
        "how processes are started",
        lambda it: (it._default_context._actual_context or it._default_context._default_context)._name,
    ),
    ("asyncio.events", "the event loops", lambda it: _foreign_policy(it)),
)
"""A module, what is asked of it, and how."""


def _value_of(module: "Any", ask: "Any") -> "Any":
    """Return an answer; None where the module is half made, or another of that name."""
    try:
        return ask(module)
    except AttributeError:
        return None


def _foreign_policy(events: "Any") -> str:
    """Return whose event loops these are; Python makes its own when they are first asked for."""
    kind = type(events._event_loop_policy)
    return "" if kind.__module__.partition(".")[0] in ("builtins", "asyncio") else repr(kind)


def _text(path: str) -> str:
    with open(path) as file:
        return file.read()


def _children() -> "list[str]":
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return file.read().split()
    except OSError:
        return []


def _opens_gpu() -> bool:
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith(_GPU):
                return True
        except OSError:
            continue
    return False


def files(group: "Any") -> "Iterator[str]":
    """Yield the files of a group's modules (vaultlayer_stash.Group)."""
    for module in group.modules.values():
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str):
            yield file


def mark(path: str) -> "tuple[int, int] | None":
    """Return what changes with a file's content; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
