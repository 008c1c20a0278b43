"""How a Trainer's resume loads the files of its checkpoint: what ``state/loadable.py`` tries behind each save.

Only files that a resume can't do without: a script may keep in the folder whatever it likes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import safe_open

from vaultlayer_hf.state.data_digest import spread
from vaultlayer_hf.state.loadable import Kind, LoadTrial
from vaultlayer_hf.state.saved_digests import read_digests
from vaultlayer_hf.state.tensor_digests import differing, digest_tensors, plain_name
from vaultlayer_hf.trainer.trained import is_adapter

_KINDS: tuple[tuple[Kind, str], ...] = (
    ("adapter", r"(.*/)?adapter_model\.safetensors"),
    ("tensors", r"(.*/)?[^/]+\.safetensors"),
    ("json", r"trainer_state\.json|(.*/)?(config|adapter_config)\.json|(.*/)?[^/]+\.index\.json"),
    (
        "weights",
        r"(optimizer|scheduler|scaler)\.pt|(.*/)?(pytorch|adapter)_model(-\d+-of-\d+)?\.bin",
    ),
    (
        "archive",
        r"rng_state(_\d+)?\.pth|vaultlayer_(data_\d+|added_groups)\.pt|optimizer(_\d+)?\.bin|pytorch_model_fsdp.*\.bin",
    ),
    ("archive", r"global_step\d+/.*_states\.pt|vaultlayer_added/.*\.pt"),
)
_LOADS = ("_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_scaler")
_LOOKED_AT = 8
"""Tensors of a file of weights that are compared with what is trained."""
_FIX = (
    "a resume would go on from it to another end. Have the Trainer save what it trains, and write an average or a "
    "merged model to a folder of its own, such as in on_save"
)
_KNOWN = ("transformers", "trl", "vaultlayer_hf")


def load_trial(trainer: Any) -> LoadTrial:
    """Return what tries the files of this Trainer's checkpoints; None for one that isn't known, taken as stock's.

    Where its class loads in a way of its own, what that can read isn't known, and only the archives are looked at.
    """
    own = trainer is not None and any(
        getattr(getattr(type(trainer), name, None), "__module__", "transformers").split(".")[0] not in _KNOWN
        for name in _LOADS
    )
    other = functools.partial(other_weights, adapter=trainer is not None and is_adapter(trainer.model))
    kinds = functools.partial(kind_of, by_stock=not own)
    return LoadTrial(kinds) if own else LoadTrial(kinds, other)


def other_weights(folder: Path, paths: Collection[str], *, adapter: bool = False) -> str:
    """Return in words that a checkpoint's files hold other weights than those that are trained; empty: they don't.

    A script may save an average in the model's place, or an adapter merged into its base. The Trainer would go on from
    these, to another end. Of the tensors that stand in both under one name a few are looked at.

    ``adapter``: whether an adapter is trained, of which the Trainer saves nothing else.
    """
    saved = read_digests(folder, 0)
    weights = sorted(path for path in paths if re.fullmatch(r"model[^/]*\.safetensors", path))
    if saved is None or saved.sharded or not weights:
        return ""
    if adapter and not any("adapter_model" in path for path in paths):
        return f"{weights[0]} is a whole model, and what is trained is an adapter: {_FIX}"
    here: dict[str, str] = {}
    for path in weights:
        with safe_open(folder / path, "pt") as file:
            named = {plain_name(name): name for name in file.keys()}  # noqa: SIM118  it is no dictionary
            both = [name for name in named if name in saved.model]
            some = (both[place] for place in spread(len(both), _LOOKED_AT))
            here |= digest_tensors((name, file.get_tensor(named[name])) for name in some)
    others = differing({name: saved.model[name] for name in here}, here)
    if 2 * len(others) <= len(here):  # some may be frozen: those are the same in an average, too
        return ""
    return f"{weights[0]} holds other weights than those that are trained, such as {others[0]}: {_FIX}"


def kind_of(path: str, *, by_stock: bool = True) -> Kind | None:
    """Return how a file of a checkpoint is loaded; None: it isn't, or a resume does without it.

    >>> kind_of("optimizer.pt"), kind_of("rng_state_1.pth"), kind_of("notes.json")
    ('weights', 'archive', None)
    """
    kind: Kind | None = next((kind for kind, names in _KINDS if re.fullmatch(names, path)), None)
    return "archive" if kind == "weights" and not by_stock else kind
