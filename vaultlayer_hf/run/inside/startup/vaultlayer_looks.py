"""What an import may ask of its process, and a script may have changed before it: noted, and so in the spare, too."""

import _frozen_importlib
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_FOR_THREADS = {"cores": "on other cores", "mask": "with other signals blocked"}
"""What a library in C counts its threads by, or gives them, when it is loaded."""


def looks() -> "dict[str, Any]":
    """Return how this process looks.

    ``argv``: the arguments; ``file`` of ``__main__``, by whose absence libraries know a console; ``module``: its name
    where it is run by -m; ``zone``: the names of the time zone; ``cores`` that this thread may run on; ``mask``: the
    signals that it blocks.
    """
    signals: Any = sys.modules["_signal"]
    main: Any = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    return {
        "argv": [str(one) for one in getattr(sys, "argv", ())],
        "file": file if isinstance(file, str) else None,
        "module": getattr(getattr(main, "__spec__", None), "name", None),
        "zone": list(time.tzname),
        "cores": sorted(os.sched_getaffinity(0)),
        "mask": sorted(map(int, signals.pthread_sigmask(signals.SIG_BLOCK, ()))),
    }


def look_like(seen: "Mapping[str, Any]") -> None:
    """Have this process look so. Raises OSError where it may not run on these cores."""
    signals: Any = sys.modules["_signal"]
    sys.argv[:] = seen["argv"]
    main = sys.modules["__main__"].__dict__
    main.pop("__file__", None)
    if seen["file"] is not None:
        main["__file__"] = seen["file"]
    name, file = seen["module"], seen["file"]
    main["__spec__"] = None if name is None else _frozen_importlib.ModuleSpec(name, None, origin=file)
    os.sched_setaffinity(0, seen["cores"])
    signals.pthread_sigmask(signals.SIG_SETMASK, seen["mask"])


def be_in_zone(names: "list[str]") -> None:
    """Have the time zone of the environment, which counts once a process has asked for it."""
    if list(time.tzname) != names:
        time.tzset()


def how_differs(seen: "Mapping[str, Any]", now: "Mapping[str, Any]") -> str:
    """Return in what a library that is loaded now would start its threads in another way; empty: in nothing."""
    return next((words for what, words in _FOR_THREADS.items() if seen[what] != now[what]), "")


def makes_other_tensors() -> bool:
    """Tell whether a tensor that a module makes at its import would have another type or device than usual."""
    torch: Any = sys.modules.get("torch")
    if getattr(getattr(torch, "__spec__", None), "_initializing", False):
        return False  # what is half made can't be asked
    if not hasattr(torch, "get_default_dtype"):
        return False
    device = getattr(sys.modules.get("torch.utils._device"), "CURRENT_DEVICE", None)
    return device is not None or str(torch.get_default_dtype()) != "torch.float32"
