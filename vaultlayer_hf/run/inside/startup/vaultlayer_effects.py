"""What an import changes beside the modules that it brings: its output, and what can't be taken back."""

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

    While it is to be seen there, `from package import name` imports nothing.
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
        packages = [one for one in modules if "__path__" in getattr(one, "__dict__", ())]
        self._known += [(package, set(package.__dict__)) for package in packages]
        return found


def surroundings() -> "dict[str, Any]":
    """Return what an import must leave as it is: done beforehand, it would come before what the script does first."""
    modules, signals = sys.modules, sys.modules["_signal"]  # built in: signal itself imports enum
    found: dict[str, Any] = {
        "the working directory": os.getcwd(),
        "sys.path": list(sys.path),
        "signal handlers": [signals.getsignal(number) for number in signals.valid_signals()],
        "stdout or stderr": (sys.stdout, sys.stderr),
        "the hook for uncaught exceptions": sys.excepthook,
        "the recursion limit": sys.getrecursionlimit(),
        "child processes": _children(),
        "a GPU": _opens_gpu(),
        "threads": len(
            getattr(modules.get("threading"), "_active", (0,))
        ),  # Python's own: the main one at first
    }
    # What isn't there yet comes with the import, as it would in a cold start.
    if (random := modules.get("random")) is not None and hasattr(random, "getstate"):
        found["random numbers"] = random.getstate()
    if (numpy := modules.get("numpy.random")) is not None and hasattr(numpy, "get_state"):
        found["numpy's random numbers"] = repr(numpy.get_state(legacy=False))
    if (torch := modules.get("torch")) is not None and hasattr(torch, "default_generator"):
        found["torch's random numbers"] = torch.default_generator.get_state().tolist()
        found["torch's settings"] = (torch.get_default_dtype(), torch.is_grad_enabled())
    if (logging := modules.get("logging")) is not None:
        root = logging.root
        found["the root logger"] = (list(root.handlers), root.level, root.manager.disable)
    return found


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
