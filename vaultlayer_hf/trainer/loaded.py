"""Behind the load of a resume, ahead of the first step: what is in memory is what was saved, or nothing is trained.

The Trainer of transformers 5 loads the file of a checkpoint by the names that stand in it, leniently. For every
architecture whose files have other names than its modules (ViT, Swin, ESM, Mixtral, Qwen MoE, DeepSeek-V3 and others:
transformers issue 48805) most weights stay as they were made, and training goes on with them. ``from_pretrained`` maps
the names, so what wasn't loaded is loaded through it once more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import PreTrainedModel

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import NotLoadedError
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.saved_digests import in_words, read_digests, state_differences
from vaultlayer_hf.state.tensor_digests import plain_name
from vaultlayer_hf.trainer.trained import Trained, is_adapter


def keep_digests(folder: Path, ranks: Ranks, events: Events, trained: Trained) -> None:
    """Write the digests of what is trained into a checkpoint folder that is being saved.

    Never raises: without them the checkpoint can be resumed from, but what was loaded can't be compared then.
    """
    try:
        if ranks.rank == 0 or trained.sharded:
            trained.digests(ranks.world_size).write(folder, ranks.rank)
    except Exception as error:  # whatever a user's model or a full disk raises costs no checkpoint
        _no_digests(folder, events, error)


def digests_of_copy(
    folder: Path, ranks: Ranks, events: Events, trained: Trained, later: Callable[[Any], Callable[[], Any]]
) -> Callable[[], None]:
    """Return a function that writes the digests of what is trained now, though it is called later, on any thread.

    Neither this nor what it returns raises: see ``keep_digests``.
    """
    if ranks.rank and not trained.sharded:
        return lambda: None
    try:
        tensors = trained.tensors(ranks.world_size).through(later)
    except Exception as error:
        _no_digests(folder, events, error)
        return lambda: None

    def write() -> None:
        try:
            tensors.through(lambda copy: copy()).digests().write(folder, ranks.rank)
        except Exception as error:
            _no_digests(folder, events, error)

    return write


def _no_digests(folder: Path, events: Events, error: Exception) -> None:
    events.warn_once(
        "digests",
        EventKind.TROUBLE,
        f"{folder.name}: a resume can't be compared with what is trained now: {type(error).__name__}: {error}",
    )


def check_loaded(folder: Path, ranks: Ranks, events: Events, trained: Trained) -> None:
    """Compare what was loaded from a checkpoint folder with what was saved, and load what is lacking. All ranks.

    A checkpoint that says nothing of its tensors (by the stock Trainer, or an earlier version of this package) is taken
    as it is; so is a shard where another number of ranks goes on.

    Raises, on all ranks, NotLoadedError where what is in memory isn't what was saved, and RanksError.
    """
    saved = read_digests(folder, ranks.rank)
    model = trained.model

    def check() -> None:
        if saved is None or not saved.comparable(ranks.world_size):
            return
        differences = state_differences(saved, trained.digests(ranks.world_size))
        for load in () if saved.sharded else (_load_by_plain_names, _load_as_pretrained):
            if "model" in differences and load(folder, peeled(model)):
                differences = state_differences(saved, trained.digests(ranks.world_size))
                if "model" not in differences and ranks.rank == 0:
                    events.info(EventKind.NOTICE, f"{_partly(folder, model)}: the rest was loaded after it")
        if differences:
            raise NotLoadedError(
                f"{folder} is whole, but {_unlike(folder, model, differences)}, and a run that goes on from it would "
                f"be another one: {in_words(saved, differences)}. Nothing was trained. Start it with the "
                "versions that saved it (`vl show` names them), or load the checkpoint in the script and name a new "
                "vault"
            )

    ranks.on_every_rank(check)


def _partly(folder: Path, model: Any) -> str:
    return (
        f"transformers {transformers.__version__} has loaded only a part of {folder.name} into "
        f"{type(peeled(model)).__name__}"
    )


def _unlike(folder: Path, model: Any, differences: Collection[str]) -> str:
    if "model" in differences:
        return _partly(folder, model)
    return f"what transformers {transformers.__version__} has loaded from {folder.name} isn't what was saved"


def _load_by_plain_names(folder: Path, model: Any) -> bool:
    """Load the tensors of a checkpoint's files by their names without wrappers, as of a compiled model's; tell whether.

    Stock takes a name such as ``_orig_mod.layer.weight`` for another tensor than ``layer.weight``.
    """
    own = {plain_name(name): tensor for name, tensor in model.state_dict().items()}
    if is_adapter(model):
        files = [
            (path, _of_adapter(own, name))
            for name in model.peft_config
            for path in _adapter_files(folder, name)
        ]
    else:
        files = [(path, own) for path in sorted(folder.glob("model*.safetensors"))]
    found = False
    for path, own in files:
        with safe_open(path, "pt") as file, torch.no_grad():
            for name in file.keys():  # noqa: SIM118  it is no dictionary
                target = own.get(plain_name(name))
                if target is not None and list(target.shape) == file.get_slice(name).get_shape():
                    target.copy_(file.get_tensor(name))
                    found = True
    return found


def _adapter_files(folder: Path, adapter: str) -> list[Path]:
    """Return the files of an adapter in a checkpoint folder: PEFT gives each but "default" a folder of its own."""
    return sorted((folder if adapter == "default" else folder / adapter).glob("adapter_model*.safetensors"))


def _of_adapter(own: dict[str, Any], adapter: str) -> dict[str, Any]:
    """Return an adapter's tensors by the names that PEFT writes, which leave out that of the adapter."""
    marks = (f".modules_to_save.{adapter}.", f".{adapter}.")
    found = {}
    for name, tensor in own.items():
        mark = next((one for one in marks if one in f"{name}."), None)
        if mark is not None:
            found[f"{name}.".replace(mark, ".").removesuffix(".")] = tensor
    return found


def _load_as_pretrained(folder: Path, model: Any) -> bool:
    """Load a checkpoint's weights into the model as ``from_pretrained`` names them; tell whether it could.

    All of them pass through 32 bits where the model has such, which changes no value of fewer bits.
    """
    if not isinstance(model, PreTrainedModel) or is_adapter(model):
        return False
    named = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    dtypes = {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}
    dtype = max(dtypes, key=lambda one: torch.finfo(one).bits) if dtypes else None
    try:
        make: Any = type(model).from_pretrained
        loaded = make(folder, config=model.config, **{named: dtype})
    except Exception:  # a model of the user's own may take other arguments: then the difference is reported
        return False
    source = {plain_name(name): tensor for name, tensor in loaded.state_dict().items()}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            found = source.get(plain_name(name))
            if found is not None and found.shape == tensor.shape:
                tensor.copy_(found)
    return True
