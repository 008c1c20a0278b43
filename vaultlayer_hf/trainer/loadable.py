"""How a Trainer's resume loads the files of its checkpoint: what ``state/loadable.py`` tries behind each save.

Only files that a resume can't do without: a script may keep in the folder whatever it likes.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from vaultlayer_hf.state.loadable import Kind, LoadTrial

_KINDS: tuple[tuple[Kind, str], ...] = (
    ("adapter", r"(.*/)?adapter_model\.safetensors"),
    ("tensors", r"(.*/)?[^/]+\.safetensors"),
    ("json", r"trainer_state\.json|(.*/)?(config|adapter_config)\.json|(.*/)?[^/]+\.index\.json"),
    ("weights", r"(optimizer|scheduler|scaler)\.pt|(.*/)?(pytorch|adapter)_model(-\d+-of-\d+)?\.bin"),
    (
        "archive",
        r"rng_state(_\d+)?\.pth|vaultlayer_data_\d+\.pt|optimizer(_\d+)?\.bin|pytorch_model_fsdp.*\.bin",
    ),
    ("archive", r"global_step\d+/.*_states\.pt|vaultlayer_added/.*\.pt"),
)
_LOADS = ("_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_scaler")
_KNOWN = ("transformers", "trl", "vaultlayer_hf")


def load_trial(trainer: Any) -> LoadTrial:
    """Return what tries the files of this Trainer's checkpoints; None for one that isn't known, taken as stock's.

    Where its class loads in a way of its own, what that can read isn't known, and only the archives are looked at.
    """
    own = trainer is not None and any(
        getattr(getattr(type(trainer), name, None), "__module__", "transformers").split(".")[0] not in _KNOWN
        for name in _LOADS
    )
    return LoadTrial(functools.partial(kind_of, by_stock=not own))


def kind_of(path: str, *, by_stock: bool = True) -> Kind | None:
    """Return how a file of a checkpoint is loaded; None: it isn't, or a resume does without it.

    >>> kind_of("optimizer.pt"), kind_of("rng_state_1.pth"), kind_of("notes.json")
    ('weights', 'archive', None)
    """
    kind: Kind | None = next((kind for kind, names in _KINDS if re.fullmatch(names, path)), None)
    return "archive" if kind == "weights" and not by_stock else kind
