"""The place in the data beside a Trainer's checkpoint, one small file a rank: ``vaultlayer_data_<rank>.pt``."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.base import files
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.state.data.follower import Follower
from vaultlayer_hf.state.data.likeness import Likeness, data_differences
from vaultlayer_hf.state.data.position import Position, content_of, position_from

FORMAT = 1


def file_name(rank: int) -> str:
    """Return the name of a rank's file."""
    return f"vaultlayer_data_{rank}.pt"


@dataclass
class Record:
    """The content of a file.

    Attributes:
        position: None where this training's loader couldn't be followed.
        likeness: what the run was like that wrote it, see state/data/likeness.py; in the file it is "print".
        why: why there is no position.
        losses: what the Trainer had summed up for its logs, see logged_loss.py; None where it isn't known.
    """

    position: Position | None
    likeness: dict[str, Any]
    why: str = ""
    losses: dict[str, Any] | None = None

    def write(self, folder: Path, rank: int) -> None:
        """Write it into a checkpoint folder. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "position": content_of(self.position) if self.position is not None else None,
            "print": self.likeness,
            "why": self.why,
            "losses": self.losses,
        }
        data = io.BytesIO()  # torch's own writer raises no OSError where a disk is full
        torch.save(content, data)
        files.write_unflushed(folder / file_name(rank), data.getbuffer())


def read_record(folder: Path, rank: int) -> Record | str:
    """Return a rank's record from a checkpoint folder, or why it has none."""
    path = folder / file_name(rank)
    if not path.is_file():
        return f"{folder.name} has no {path.name}"
    try:
        content = torch.load(path, map_location=_onto_this_machine, weights_only=True)
        if content["format"] != FORMAT:
            return f"{path.name} of {folder.name} is of another version"
        position = content["position"]
        return Record(
            position_from(position) if position is not None else None,
            content["print"],
            content["why"],
            content.get("losses"),  # 0.1.0 kept none
        )
    except Exception as error:  # whatever is wrong with a file, the run goes on without it
        return f"{path.name} of {folder.name} can't be read ({type(error).__name__}: {error})".splitlines()[0]


def _onto_this_machine(storage: Any, at: str) -> Any:
    """Return a tensor's storage, read into the CPU's memory, where this process has it: on the device that it was on.

    Of a script's own tensors; all else in a file is the CPU's. Where there is no such device, the machine is another
    one. And each of several processes has a GPU of its own, whose number may be another one now.
    """
    if at == "cpu":
        return storage
    if at.startswith("cuda"):
        if not torch.cuda.is_available():
            return storage
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        if not (alone and int(at.partition(":")[2] or 0) < torch.cuda.device_count()):
            return storage.cuda()
    restore: Any = torch.serialization.default_restore_location
    try:
        return restore(storage, at)
    except Exception:  # each kind of devices has an error of its own
        return storage


def record_of(folder: Path, ranks: Ranks, step: int, loss: float | None) -> Record | str:
    """Return this rank's record of the checkpoint that a run goes on from, or why there is none.

    ``step`` and ``loss``, the newest that was logged, are the checkpoint's: the file may be another one's.
    """
    record = read_record(folder, ranks.rank)
    if isinstance(record, str):
        return record
    written = record.likeness.get("world size")
    if written is None:  # the loader couldn't be looked into: there is no position either
        return replace(record, losses=None)
    if written != ranks.world_size:
        return f"{written} ranks then, {ranks.world_size} now"
    if not _is_of(record, step, loss):
        return f"its place in the data is of step {record.likeness.get('step')}"
    return record


def record_of_others(
    folder: Path, ranks: Ranks, step: int, loss: float | None, *, rank: int
) -> Record | None:
    """Return a rank's record of a checkpoint that another number of ranks has saved; None where there is none such.

    All its files are on each node then. ``step`` and ``loss``: as of ``record_of``.
    """
    record = read_record(folder, rank)
    if isinstance(record, str) or record.likeness.get("world size") in (None, ranks.world_size):
        return None
    return record if _is_of(record, step, loss) else None


def _is_of(record: Record, step: int, loss: float | None) -> bool:
    """Tell whether a record is of this step and this newest loss: its file may be another checkpoint's."""
    return record.likeness.get("step") == step and _is_same(record.likeness.get("loss"), loss)


def usable_record(
    record: Record | str,
    follower: Follower,
    likeness: Likeness,
    ignore_data_skip: bool,
    *,
    by_samples: bool = False,
) -> tuple[Record | None, list[str]]:
    """Return the record to go on from, and what speaks against the same numbers.

    Args:
        record: as ``record_of`` has it.
        follower: of this start's loader.
        likeness: what this start is like.
        ignore_data_skip: the Trainer's argument.
        by_samples: whether a pass under way goes on behind as many samples as then, and not as many batches.
    """
    if isinstance(record, str):
        return None, [record]
    if record.position is None:
        return None, [record.why]
    if ignore_data_skip and record.position.batches and not record.position.over:
        return None, ["ignore_data_skip=True begins the data anew"]
    words, holds = data_differences(
        record.likeness, likeness, workers_draw=bool(record.position.workers), by_samples=by_samples
    )
    if follower.doubt:
        words.append(follower.doubt)
    return (record if holds else None), words


def _is_same(then: Any, now: float | None) -> bool:
    """Tell whether two losses are one and the same: nan, which equals no number, is the same as nan."""
    return bool(then == now or (then != then and now is not None and math.isnan(now)))


def newest_loss(log_history: Sequence[dict[str, Any]]) -> float | None:
    """Return the newest loss that was logged."""
    return next((float(entry["loss"]) for entry in reversed(log_history) if "loss" in entry), None)
