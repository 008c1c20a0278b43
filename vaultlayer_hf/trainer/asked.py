"""What a training is asked for: arguments, optimizer and data, kept with each checkpoint and compared at a start.

A checkpoint brings its own learning rate, its own optimizer state and its own end, whatever a start asks for; and stock
says nothing of it. So what differs is said, with which of the two holds. Refused is what can't go well: an optimizer
that can't use the state, and other data on a run that is already over, which would be handed weights of another run.

One small file beside the Trainer's own, by rank 0: ``vaultlayer_asked.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset, TensorDataset
from transformers import TrainingArguments

from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.base.files import write_file
from vaultlayer_hf.errors import OtherRunError
from vaultlayer_hf.session.session import Session

FILE = "vaultlayer_asked.json"
_FORMAT = 1
_SAMPLES = 16
"""How many samples of the data are looked at: spread over all of it, so that another fold or file shows."""
_CHECKPOINT = "the checkpoint's holds; to have the other, load its model in the script and name a new vault"
_THIS_START = "this start's holds from here on"
_COMPARED = {
    # Optimizers keep these in their state, and the schedule keeps the rate that it began with.
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"), _CHECKPOINT
    ),
    # A schedule's shape is a function, which isn't saved.
    **dict.fromkeys(("lr_scheduler_type", "warmup_steps", "warmup_ratio"), _THIS_START),
    **dict.fromkeys(("max_grad_norm", "label_smoothing_factor", "bf16", "fp16"), _THIS_START),
    "seed": "random numbers go on from the checkpoint's state",
    "data_seed": "random numbers go on from the checkpoint's state",
}
"""The arguments that are compared, with what holds where they differ. Sizes of batches are the data's business."""


@dataclass(frozen=True)
class Asked:
    """What a training is asked for, in plain numbers and text.

    Attributes:
        arguments: of the Trainer, by name; those that shape the run.
        optimizer: its class's name; empty where it isn't known.
        data: a digest of some samples of the training data; empty where they can't be read without a side effect.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    optimizer: str = ""
    data: str = ""

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint folder. Raises OSError."""
        write_file(folder / FILE, json.dumps({"format": _FORMAT, **asdict(self)}, sort_keys=True).encode())


def read_asked(folder: Path) -> Asked | None:
    """Return what a checkpoint was made with; None where it doesn't say: by stock, or by an earlier version."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        return Asked(**content) if content.pop("format") == _FORMAT else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def asked_for(args: TrainingArguments, optimizer: Any, loader: Any) -> Asked:
    """Return what a training with these arguments, this optimizer and this DataLoader is asked for."""
    found = {name: getattr(args, name) for name in _COMPARED if hasattr(args, name)}
    plain = {
        name: str(value.value) if hasattr(value, "value") else value
        for name, value in found.items()
        if value is None or isinstance(value, (bool, int, float, str)) or hasattr(value, "value")
    }
    inner = getattr(optimizer, "optimizer", optimizer)
    return Asked(
        plain,
        type(inner).__name__ if inner is not None else "",
        data_digest(getattr(loader, "dataset", None)),
    )


def check_asked(then: Asked, now: Asked, *, over: bool) -> list[str]:
    """Return in words what differs, and which of the two holds. Pure.

    ``over``: the checkpoint is the end of its run. Raises OtherRunError where this start can't go on from it.
    """
    if then.optimizer and now.optimizer and then.optimizer != now.optimizer:
        raise OtherRunError(
            f"the checkpoint holds the state of {then.optimizer}, and this run trains with {now.optimizer}, which "
            "can't use it: start with the same optimizer, or load the checkpoint's model in the script and name a new "
            "vault. Nothing was trained"
        )
    other_data = bool(then.data and now.data and then.data != now.data)
    if over and other_data:
        raise OtherRunError(
            "the run on this vault is over, and it was trained on other data: its weights are no answer to this run. "
            "Each run needs a vault of its own (resume='…/fold-1'); to go on with other data on purpose, ask for more "
            "steps"
        )
    words = [
        f"{name}: {then.arguments[name]} in the checkpoint, {value} asked for: {_COMPARED[name]}"
        for name, value in now.arguments.items()
        if name in then.arguments and then.arguments[name] != value
    ]
    if other_data:
        words.append(f"the training data aren't those that the checkpoint was trained on: {_THIS_START}")
    return words


def say_what_differs(session: Session, folder: Path, now: Asked, *, over: bool) -> None:
    """Compare what a start asks for with what a checkpoint folder was made with, and say it. All ranks.

    Raises, on all ranks, OtherRunError and RanksError.
    """
    words: list[str] = []

    def check() -> None:
        then = read_asked(folder)
        if then is not None:
            words.extend(check_asked(then, now, over=over))

    session.ranks.on_every_rank(check)
    for one in words:
        session.warn_all(EventKind.NOTICE, one)


def keep_asked(folder: Path, session: Session, asked: Asked) -> None:
    """Write what a training is asked for into a checkpoint folder that is being saved; on rank 0. Never raises."""
    if session.ranks.rank != 0:
        return
    try:
        asked.write(folder)
    except OSError as error:
        session.events.warn_once(
            "asked", EventKind.TROUBLE, f"{folder.name}: a start can't be compared with this one: {error}"
        )


def data_digest(dataset: Any) -> str:
    """Return a digest of some samples of a data set; empty where reading them might have a side effect.

    A data set of the user's own may draw random numbers or count when it is asked for a sample, so only those are
    read that can't: sequences, tensors, subsets of these, and ``datasets.Dataset``, without its transform.
    """
    try:
        rows = _readable(dataset)
        if rows is None or not len(rows):
            return ""
        last, count = len(rows) - 1, min(_SAMPLES, len(rows))
        places = sorted({round(number * last / max(1, count - 1)) for number in range(count)})
        said = [str(len(rows)).encode(), *(part for place in places for part in _bytes_of(rows[place]))]
        return digest_bytes(b"\0".join(said))
    except Exception:  # whatever it holds: then nothing is said of it
        return ""


def _readable(dataset: Any) -> Any:
    """Return what can be indexed without a side effect; None: nothing of it."""
    if isinstance(dataset, Subset):
        inner = _readable(dataset.dataset)
        return None if inner is None else _Picked(inner, dataset.indices)
    if isinstance(dataset, (list, tuple, TensorDataset)):
        return dataset
    if type(dataset).__module__.split(".")[0] == "datasets" and hasattr(dataset, "with_format"):
        return dataset.with_format(None) if hasattr(dataset, "__len__") else None
    return None


class _Picked:
    """Some rows of others, by their places."""

    def __init__(self, rows: Any, places: Sequence[int]) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: int) -> Any:
        return self._rows[self._places[place]]


def _bytes_of(value: Any) -> Iterator[bytes]:
    """Yield the content of a sample. Raises TypeError for what has no content of its own."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield str(name).encode()
            yield from _bytes_of(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _bytes_of(part)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif hasattr(value, "tobytes"):
        yield value.tobytes()
    elif value is None or isinstance(value, (bool, int, float, str, bytes)):
        yield repr(value).encode()
    else:
        raise TypeError(type(value).__name__)
