"""Formats of a loop's place in its data: each is one that earlier versions would go on from otherwise, and refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaultlayer_hf.errors import ResumeError

FORMAT = 2
OF_LEFT_PASS = 3
"""Of a position in a pass that was left before its last batch, which earlier versions would go on with."""
_OF_FURTHER_PASS = 4
"""Of a position in a second pass, or later, of one epoch: earlier versions would go on with the next epoch."""
_OF_SEVERAL = 5
"""Of a run of several loaders, or loops over epochs: earlier versions would mix them up."""


def format_of(*, several: bool, further: bool, left: bool) -> int:
    """Return the format of a position: of several loaders or loops, in a further pass, in a pass that was left."""
    if several:
        return _OF_SEVERAL
    return _OF_FURTHER_PASS if further else OF_LEFT_PASS if left else FORMAT


def check_format(state: Mapping[str, Any]) -> None:
    """Raise ResumeError for a position of a later format."""
    if state.get("format") not in range(FORMAT, _OF_SEVERAL + 1):
        raise ResumeError(
            f"its place in the data is of format {state.get('format')}, and this version of vaultlayer-hf reads "
            f"formats {FORMAT} to {_OF_SEVERAL}: go on with the version that wrote it"
        )
