"""Which runs a Trainer's experiment trackers have, kept with each checkpoint: state/tracker_runs.py has the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.tracker_runs import FILE, Runs, decode_runs, encode_runs

TRACKERS = {
    "WandbCallback": "wandb",
    "TrackioCallback": "trackio",
    "MLflowCallback": "mlflow",
    "CometCallback": "comet",
    "ClearMLCallback": "clearml",
    "TensorBoardCallback": "tensorboard",
}
"""The tracker of each of transformers' integrations, by the class's name: importing a class may need its tracker."""


def keep_runs(folder: Path, session: Session, callbacks: Iterable[Any], args: TrainingArguments) -> None:
    """Write which runs the trackers have into a checkpoint folder that is being saved; on rank 0. Never raises."""
    runs = runs_of(callbacks, args) if session.ranks.rank == 0 else {}
    if not runs:
        return
    try:
        files.write_unflushed(folder / FILE, encode_runs(runs))
    except Exception as error:  # a disk's, or of an id that a tracker of another version makes in another way
        session.events.warn_once(
            "trackers",
            EventKind.TROUBLE,
            f"{folder.name}: a resume can't go on in the tracker's run: {error}",
        )


def read_runs(folder: Path) -> Runs:
    """Return the runs that the trackers had when a checkpoint was saved; empty where it doesn't say."""
    try:
        return decode_runs((folder / FILE).read_bytes())
    except OSError:
        return {}


def runs_of(callbacks: Iterable[Any], args: TrainingArguments) -> Runs:
    """Return the runs that a Trainer's integrations are writing to now."""
    found: Runs = {}
    for callback in callbacks:
        name = TRACKERS.get(type(callback).__name__)
        if name is None:
            continue
        try:
            run = _RUNS[name](callback, args)
        except Exception:  # a tracker of another version may be built in another way
            continue
        if run:
            found[name] = run
    return found


def _wandb_run(callback: Any, args: TrainingArguments) -> dict[str, str]:
    run = callback._wandb.run
    if run is None:
        return {}
    url = "" if getattr(run, "offline", False) else run.url  # W&B warns where there is none
    return {"id": run.id, "name": run.name or "", "url": url or ""}


def _trackio_run(callback: Any, args: TrainingArguments) -> dict[str, str]:
    run = callback._trackio.context_vars.current_run.get()
    return {"name": run.name, "project": run.project} if run is not None else {}


def _mlflow_run(callback: Any, args: TrainingArguments) -> dict[str, str]:
    run = callback._ml_flow.active_run()
    return {"id": run.info.run_id, "name": run.info.run_name or ""} if run is not None else {}


def _comet_run(callback: Any, args: TrainingArguments) -> dict[str, str]:
    run = callback._experiment
    return {"id": run.get_key(), "url": run.url or ""} if run is not None else {}


def _clearml_run(callback: Any, args: TrainingArguments) -> dict[str, str]:
    task = callback._clearml_task
    if task is None:
        return {}
    url = None if callback._clearml.Task.is_offline() else task.get_output_log_web_page()
    return {"id": task.id, "url": url or ""}


def _tensorboard_run(callback: Any, args: TrainingArguments) -> dict[str, str]:
    if callback.tb_writer is None:
        return {}
    folder, output_dir = Path(callback.tb_writer.log_dir).absolute(), Path(str(args.output_dir)).absolute()
    inside = folder.is_relative_to(output_dir)  # a name that holds on another machine, too
    return {"folder": folder.relative_to(output_dir).as_posix() if inside else str(folder)}


_RUNS: dict[str, Callable[[Any, TrainingArguments], dict[str, str]]] = {
    "wandb": _wandb_run,
    "trackio": _trackio_run,
    "mlflow": _mlflow_run,
    "comet": _comet_run,
    "clearml": _clearml_run,
    "tensorboard": _tensorboard_run,
}
