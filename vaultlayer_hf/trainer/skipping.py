"""How the Trainer goes past batches: by the follower of the loader, while a training is followed.

The Trainer calls ``skip_first_batches`` of its own module with the loader and a number, and has no hook there. So that
name stands for another function as long as a training of this process is followed; for loaders that nobody follows that
does what it did.

Libraries that make the Trainer quicker (Unsloth, for one) run copies of its loop: they take its source, change it, and
execute it in a module of their own, which has the name from an import. So it is replaced wherever a method of this
Trainer, or a call that is under way, looks it up. A loop that goes past batches in another way isn't seen here: the
follower notices that nobody asked it.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

import transformers.trainer
from packaging.version import Version

from vaultlayer_hf.state.data.followed import follower_of
from vaultlayer_hf.state.data.samplers import looks_ahead

_NAME = "skip_first_batches"
_ASKS_BEHIND_THE_END = Version("4.52") > Version(transformers.__version__)
"""Up to 4.51 the loop asks for another step's batches behind the last ones, where it accumulates."""
_LOOKED_INTO = ("dataset", "sampler", "batch_sampler")
_lock = threading.Lock()
_users: list[tuple[Skipping, dict[str, Any]]] = []


class Skipping:
    """One training's use of the function in the place of the Trainer's own."""

    def __init__(self) -> None:
        self.loader: Any = None
        self.accumulation = 1

    def replace(self, trainer: Any, loader: Any, accumulation: int) -> None:
        """Put our function in the place of ``skip_first_batches``: it asks a loader's follower, where it has one.

        Args:
            trainer: the one that trains, or None where it isn't known.
            loader: of this training.
            accumulation: how many of its batches are a step.
        """
        self.loader, self.accumulation = loader, accumulation
        with _lock:
            for names in _namespaces(trainer):
                _users.append((self, names))
                if not hasattr(names[_NAME], "_vaultlayer_original"):
                    names[_NAME] = _asking(names[_NAME])

    def put_back(self) -> None:
        """Put back what was there, unless another training needs it, or somebody has put a function on top of it."""
        with _lock:
            mine = [names for user, names in _users if user is self]
            _users[:] = [one for one in _users if one[0] is not self]
            for names in mine:
                original = getattr(names.get(_NAME), "_vaultlayer_original", None)
                if original is not None and not any(other is names for _, other in _users):
                    names[_NAME] = original


def _namespaces(trainer: Any) -> list[dict[str, Any]]:
    """Return the globals in which the loop of a Trainer looks the name up: each once."""
    found: list[dict[str, Any]] = [transformers.trainer.__dict__]
    for code, names in (*_methods(trainer), *_calls()):
        if _NAME in code.co_names and _NAME in names and not any(other is names for other in found):
            found.append(names)
    return found


def _methods(trainer: Any) -> Iterator[tuple[CodeType, dict[str, Any]]]:
    for owner in (trainer, *type(trainer).__mro__):
        for method in list(getattr(owner, "__dict__", {}).values()):
            if callable(method):
                function = inspect.unwrap(getattr(method, "__func__", method))
                if inspect.isfunction(function):
                    yield function.__code__, function.__globals__


def _calls() -> Iterator[tuple[CodeType, dict[str, Any]]]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame.f_code, frame.f_globals
        frame = frame.f_back


def _asking(original: Any) -> Any:
    @functools.wraps(original)
    def skip_first_batches(dataloader: Any, num_batches: int = 0) -> Any:
        follower = follower_of(dataloader)
        if follower is None or follower.guard.why:
            # accelerate looks into a loader for these, and fails on one that is none of torch's.
            own = follower is None and not all(hasattr(dataloader, name) for name in _LOOKED_INTO)
            return _Dropping(dataloader, num_batches) if own else original(dataloader, num_batches)
        return _rest(follower.skip(num_batches), num_batches)

    skip_first_batches._vaultlayer_original = original  # type: ignore[attr-defined] # a mark, and the way back
    return skip_first_batches


def _rest(loader: Any, left_out: int) -> Any:
    """Return what is to be opened in the place of a loader of which the pass is left out up to a batch.

    accelerate's own loaders look a batch ahead, and so come to their end by themselves. Of one without a length the end
    isn't known, and an unbroken run's loop asks for it, too.
    """
    follower = follower_of(loader)
    user = next((one for one, _ in _users if follower_of(one.loader) is follower), None)
    if user is None or looks_ahead(loader):
        return loader
    try:
        length, rows = len(user.loader), len(user.loader.dataset)
    except TypeError:
        return loader
    step = user.accumulation
    if _ASKS_BEHIND_THE_END and step > 1 and (rows % step or step) > length % step:
        return loader
    return _Rest(loader, length - left_out)


class _Dropping:
    """What is behind the first batches of a loader that can only be gone through. It has the loader's other sides."""

    def __init__(self, loader: Any, left_out: int) -> None:
        self._loader, self._left_out = loader, left_out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_loader"], name)

    def __len__(self) -> int:
        return len(self._loader) - self._left_out

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self._loader), self._left_out, None)


class _Rest:
    """The rest of a pass, for a loop that asks for as many batches as the whole pass has: the Trainer's, up to 5.0.

    An unbroken run's loop doesn't ask behind the last batch. A sampler that is asked there draws once more from its
    generator, or counts one pass more, and the next pass would have another order. So the loader isn't asked.

    It has the loader's other sides.
    """

    def __init__(self, loader: Any, batches: int) -> None:
        self._loader, self._batches = loader, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_loader"], name)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self._loader), self._batches)
