"""How far logs had come when an attempt died, so that a tracker isn't told of a step twice.

The dead attempt had logged beyond the checkpoint that the run goes on from, and those steps are trained again. A
tracker can't take points back, so its integration isn't told of them once more. Only the tracker itself knows what it
has: most send or write in the background, and a kill loses what was under way (W&B's offline file holds nothing at all
of a short attempt). One that can't be asked is told again: a point that stands twice is better than none.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEADER = struct.Struct("<HB")
"""Length and kind of a chunk, behind its checksum of 4 bytes."""
_BLOCK = 32768
"""Bytes; a chunk never lies in two blocks of W&B's file."""


@dataclass(frozen=True)
class Logged:
    """How far logs had come.

    Attributes:
        step: the last step that was logged; 0 before the first.
        names: of what was logged at that step: a loss and an evaluation of one step are two logs.
    """

    step: int = 0
    names: frozenset[str] = frozenset()

    def holds(self, step: int, names: Iterable[str]) -> bool:
        """Tell whether what is logged now was logged already."""
        return step < self.step or (step == self.step and self.names.issuperset(names))


def ask_tracker(name: str, callback: Any) -> Logged | None:
    """Return how far a tracker says that its run's logs have come; None where it can't say. Never raises."""
    try:
        return _ASKED[name](callback) if name in _ASKED else None
    except Exception:  # a tracker of another version, or one that can't be reached now
        return None


def _ask_wandb(callback: Any) -> Logged | None:
    run = callback._wandb.run
    if run is None:
        return None
    if getattr(run, "offline", False):
        folder, name = Path(run.settings.wandb_dir), f"run-{run.id}.wandb"
        return _newest(row for path in sorted(folder.glob(f"*/{name}")) for row in wandb_rows(path))
    # Of what was logged at that step the summary doesn't tell; an evaluation comes behind the loss.
    return _newest([{name: value for name, value in run.summary.items() if name.startswith("train/")}])


def wandb_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what one attempt of an offline run has logged, by W&B's names; a kill may have torn the end."""
    from wandb.proto import wandb_internal_pb2

    for content in _wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        yield {
            item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
        }


def _wandb_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of W&B's file, which has LevelDB's log format behind 7 bytes of its own."""
    at, record = 7, b""
    while at + 7 <= len(content):
        if at % _BLOCK > _BLOCK - 7:  # no header fits into the rest of the block
            at += _BLOCK - at % _BLOCK
            continue
        size, kind = _HEADER.unpack_from(content, at + 4)
        if kind == 0 or at + 7 + size > len(content):
            return
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""


def _newest(rows: Iterable[Mapping[str, Any]]) -> Logged | None:
    """Return how far logs have come by what a tracker has of each, under the names that transformers gives it."""
    last = Logged()
    for row in rows:
        step = row.get("train/global_step")
        if step is None or int(step) < last.step:
            continue
        names = frozenset(part.removeprefix("train/").replace("eval/", "eval_") for part in row)
        last = Logged(int(step), names | (last.names if int(step) == last.step else frozenset()))
    return last if last.step else None


def _ask_trackio(callback: Any) -> Logged | None:
    from trackio.sqlite_storage import SQLiteStorage  # isn't installed where it isn't used

    run = callback._trackio.context_vars.current_run.get()
    if run is None or callback._trackio.context_vars.current_space_id.get():
        return None
    return _newest(SQLiteStorage.get_logs(run.project, run.name))


def _ask_mlflow(callback: Any) -> Logged | None:
    run = callback._ml_flow.active_run()
    if run is None:
        return None
    client = callback._ml_flow.MlflowClient()
    names = client.get_run(run.info.run_id).data.metrics
    steps = {
        name: max(point.step for point in client.get_metric_history(run.info.run_id, name)) for name in names
    }
    last = max(steps.values(), default=0)
    return Logged(last, frozenset(name for name, step in steps.items() if step == last))


_ASKED: dict[str, Callable[[Any], Logged | None]] = {
    "wandb": _ask_wandb,
    "trackio": _ask_trackio,
    "mlflow": _ask_mlflow,
}
