"""trainer_state.json made fit for this transformers.

A newer transformers may write fields that an older one doesn't know, and stock ends with a bare TypeError there. An
older version has no use for such a field: it trains by those that it knows, and the weights, the optimizer's state, the
schedule and the random numbers have files of their own, the first three compared with what was saved. So in a
restored folder, which is this package's own copy, unknown fields are left out, and both versions are named. A folder
that the script names isn't ours to change: there it is one error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import transformers
from transformers import TrainerState

from vaultlayer_hf.errors import ResumeError
from vaultlayer_hf.trainer.layout import STATE, localise

_KNOWN = frozenset(field.name for field in fields(TrainerState) if field.init)


def fitted_state(folder: Path, output_dir: str) -> tuple[bytes | None, list[str]]:
    """Return what ``localise`` does, without the fields that this transformers doesn't know."""
    return localise(folder, output_dir, _KNOWN)


def left_out(unknown: list[str], versions: Mapping[str, str]) -> str:
    """Say in words which fields of a checkpoint's state are left out, and that another version has written them.

    ``versions``: of the libraries that have written the checkpoint, as far as that is known.
    """
    writer = versions.get("transformers")
    return (
        f"its {STATE}, by {f'transformers {writer}' if writer else 'another transformers'}, has fields that "
        f"transformers {transformers.__version__} doesn't know: {', '.join(unknown)}"
    )


def check_state(folder: Path) -> None:
    """Raise ResumeError where stock can't read the trainer state of a folder that the script names.

    Whatever else is wrong with the file, the Trainer says itself.
    """
    try:
        unknown = fitted_state(folder, "")[1]
    except (OSError, ValueError, TypeError, AttributeError):
        return
    if unknown:
        what = left_out(unknown, {"transformers": found} if (found := _writer(folder)) else {})
        raise ResumeError(
            f"{folder}: {what}, so it can't be loaded: start with the version that has written it, or take "
            "these fields out of the file. Nothing was trained"
        )


def _writer(folder: Path) -> str | None:
    """Return which transformers has written a folder's model; None where it doesn't say, as with an adapter."""
    try:
        found = json.loads((folder / "config.json").read_text()).get("transformers_version")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None
