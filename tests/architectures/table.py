"""What a Trainer's resume leaves of a model that was saved: by stock transformers, and with the check behind it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.architectures.tiny import small_model
from vaultlayer_hf.base.events import Events
from vaultlayer_hf.errors import NotLoadedError
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.trainer.loaded import check_loaded, keep_digests
from vaultlayer_hf.trainer.trained import Trained


@dataclass(frozen=True)
class Row:
    """One architecture.

    Attributes:
        kind: the model type.
        cls: the model's class.
        tensors: how many of them the checkpoint holds.
        stock: how many of these differ from what was saved once stock transformers has loaded the checkpoint.
        ours: the same behind our check; None where it refused to train on.
        why: why there is nothing to tell, such as a missing library; empty otherwise.
    """

    kind: str
    cls: str
    tensors: int = 0
    stock: int = 0
    ours: int | None = 0
    why: str = ""


def rows(architectures: Iterable[tuple[str, str]]) -> Iterator[Row]:
    """Save, load and check one small model of each kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, cls in architectures:
            try:
                saved, other = small_model(kind, cls, 0), small_model(kind, cls, 1)
            except Exception as error:  # an architecture may lack a library, or not be small
                why = (str(error).strip().splitlines() or [""])[0][:90]
                yield Row(kind, cls, why=f"{type(error).__name__}: {why}")
                continue
            try:
                yield _row(kind, cls, saved, other)
            except Exception as error:
                why = (str(error).strip().splitlines() or [""])[0][:90]
                yield Row(kind, cls, why=f"stock can't save or load it: {type(error).__name__}: {why}")


def _row(kind: str, cls: str, saved: Any, other: Any) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(folder, use_cpu=True, report_to="none", disable_tqdm=True)
        checkpoint = Path(folder) / "checkpoint-1"
        transformers.Trainer(saved, arguments).save_model(str(checkpoint))
        keep_digests(checkpoint, Ranks(), Events(), Trained(saved))
        transformers.Trainer(other, arguments)._load_from_checkpoint(str(checkpoint))
        tensors = _tensors(saved)
        stock = _different(tensors, other)
        try:
            check_loaded(checkpoint, Ranks(), Events(), Trained(other))
        except NotLoadedError:
            return Row(kind, cls, len(tensors), stock, None)
        return Row(kind, cls, len(tensors), stock, _different(tensors, other))


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    """Return what a checkpoint of a model is to bring back: compared here as it is, without any digest."""
    left_out = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    return {name: tensor for name, tensor in model.state_dict().items() if name not in left_out}


def _different(saved: dict[str, torch.Tensor], model: Any) -> int:
    loaded = model.state_dict()
    return sum(_bytes(tensor) != _bytes(loaded[name]) for name, tensor in saved.items())


def _bytes(tensor: torch.Tensor) -> bytes:
    """Return a tensor's content. Some architectures leave weights as memory had them: a nan there equals nothing."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
