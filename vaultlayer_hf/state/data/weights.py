"""The weights by which a sampler draws rows, where the loop changes them: the next pass is drawn by them.

Those that never change are the script's to choose. A pass that goes on has those that it was begun with, since its
order was drawn by them, and after its opening those of the save. Ahead of a new pass a script may have set others by
itself: only those that the run began with give way to the save's.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch

from vaultlayer_hf.state.tensor_digests import digest_tensors

WEIGHTS = "weights"
"""Attribute of torch's ``WeightedRandomSampler``; and, in a sampler's state, the tensor.

A version without this module sets whatever a state names, so it puts these weights back, too.
"""
_BEGAN = "weights began"
"""In a sampler's state: the digest of those that the run began with, and whether they are changed in place."""
KEYS = (WEIGHTS, _BEGAN)


@dataclass
class _Seen:
    """What is known of one sampler's weights.

    Attributes:
        first: digest of those that the run began with.
        tensor: that this process has seen first.
        moved: whether others have been there since.
        newest: a copy of those that were seen last, with its digest, which states share; None until they move.
    """

    first: str
    tensor: weakref.ref[torch.Tensor]
    moved: bool = False
    newest: tuple[str, torch.Tensor] | None = None


_seen: weakref.WeakKeyDictionary[Any, _Seen] = weakref.WeakKeyDictionary()


def take_weights(part: Any) -> dict[str, Any]:
    """Return what a sampler's state has of its weights; nothing where it has none, or they are those of the begin."""
    now = _weights_of(part)
    seen = _look(part, now)
    if now is None or seen is None:
        return {}
    digest = _digest_of(now)
    seen.moved = seen.moved or digest != seen.first
    if not seen.moved:
        return {}
    if seen.newest is None or seen.newest[0] != digest:
        seen.newest = digest, now.detach().to("cpu", copy=True)
    return {WEIGHTS: seen.newest[1], _BEGAN: (seen.first, seen.tensor() is now)}


def put_weights(part: Any, state: dict[str, Any], *, began: bool) -> None:
    """Put back what ``take_weights`` returned.

    ``began``: the pass has begun, so what the script has set since doesn't count; else that stays.
    """
    now = _weights_of(part)
    seen = _look(part, now)
    if now is None or seen is None or WEIGHTS not in state:
        return
    kept, (seen.first, in_place) = state[WEIGHTS], state[_BEGAN]
    seen.moved = True
    if not began and _digest_of(now) != seen.first:
        return
    if in_place and (now.shape, now.dtype) == (kept.shape, kept.dtype):
        with torch.no_grad():
            now.copy_(kept)  # the script may hold them by a name of its own
    else:
        part.weights = kept.to(now.device, copy=True)


def _look(part: Any, now: torch.Tensor | None) -> _Seen | None:
    """Return what is known of a sampler's weights, from their first sight on; None: it can't be noted."""
    if now is None:
        return None
    try:
        if part not in _seen:
            _seen[part] = _Seen(_digest_of(now), weakref.ref(now))
        return _seen[part]
    except TypeError:  # it can't be told apart from others
        return None


def _weights_of(part: Any) -> torch.Tensor | None:
    found = getattr(part, "__dict__", {}).get(WEIGHTS)
    return found if type(found) is torch.Tensor and found.layout is torch.strided else None


def _digest_of(weights: torch.Tensor) -> str:
    return digest_tensors([(WEIGHTS, weights)]).get(WEIGHTS, "")
