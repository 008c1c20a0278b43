"""An error that this package raises on purpose ends a program with its message, not with our frames above it.

Its message says what happened and what to do. The lines that lead to it through this package, transformers and the
causes below (a client library's, say) help nobody who reads that, and push it off the screen. So of such an error only
the frames of the person's own code are printed, and the message comes last. ``VAULTLAYER_VERBOSITY=debug`` shows all.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from vaultlayer_hf.errors import VaultLayerError

_OURS = str(Path(__file__).resolve().parent.parent) + os.sep


def install() -> None:
    """Have uncaught errors of this package printed short, in scripts and in notebooks. Safe to call again.

    Called again where another library has put a hook of its own in front, it has that one see the short error, too.
    """
    before = sys.excepthook
    if hasattr(before, "_vaultlayer_before"):
        return

    def hook(cls: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        first = sys.excepthook
        # W&B's hook prints an error and hands it on to us. Where one of ours stands in front of it, or where the error
        # is another's, what it has printed is all there is to say.
        if (
            first is not hook
            and _prints(getattr(first, "_vaultlayer_before", first))
            and (hasattr(first, "_vaultlayer_before") or not is_short(error))
        ):
            return None
        if is_short(error):
            trace = own_frames(trace)
            error.__cause__, error.__suppress_context__ = None, True
            error.__traceback__ = trace
        return before(cls, error, trace)

    marked: Any = hook
    marked._vaultlayer_before = before
    sys.excepthook = hook
    named: Any = VaultLayerError
    named._render_traceback_ = lambda error: short_text(error).splitlines()  # asked for by IPython


def _prints(hook: Any) -> bool:
    """Tell whether a hook is W&B's, which prints an error by itself and then calls the hook that was there before."""
    return type(getattr(hook, "__self__", None)).__module__.partition(".")[0] == "wandb"


def short_text(error: BaseException) -> str:
    """Return an error as it is printed: one of ours short, any other as Python prints it."""
    if not is_short(error):
        return "".join(traceback.format_exception(error))
    frames = own_frames(error.__traceback__)
    return "".join(traceback.format_exception(type(error), error, frames, chain=False))


def is_short(error: BaseException) -> bool:
    """Tell whether an error is printed short: one of this package's, or one that is marked with ``short``."""
    return (isinstance(error, VaultLayerError) or getattr(error, "short", False) is True) and not _shows_all()


def own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback of the person's own frames alone; the whole one where there is none such."""
    kept: list[TracebackType] = []
    here = trace
    while here is not None:
        if is_own(here.tb_frame.f_code.co_filename) and not _is_generated(here.tb_frame):
            kept.append(here)
        here = here.tb_next
    found: TracebackType | None = None
    for one in reversed(kept):
        found = TracebackType(found, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return found if kept else trace


def _is_generated(frame: FrameType) -> bool:
    """Tell whether a frame is of code that Python has made for this package, such as a dataclass's ``__init__``."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == __name__.partition(".")[0]


@functools.cache
def _installed() -> tuple[str, ...]:
    import sysconfig  # an error alone needs it, and each start would wait for it

    paths = sysconfig.get_paths()
    return tuple(paths[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def is_own(path: str) -> bool:
    """Tell whether a file is the person's: neither this package's, nor installed, nor Python's."""
    return not path.startswith((_OURS, *_installed(), "<frozen"))


def _shows_all() -> bool:
    return os.environ.get("VAULTLAYER_VERBOSITY", "").strip().lower() == "debug"
