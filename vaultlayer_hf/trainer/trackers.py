"""One run in the experiment tracker over all attempts of a training, and no step in it twice.

Each start of a Trainer begins another run in W&B, Trackio, MLflow, Comet, and another folder of TensorBoard's. So which
run the tracker had is kept with each checkpoint (``vaultlayer_trackers.json``), and given back to the Trainer's own
integration as it sets itself up behind a resume, unless the user has set one:

    W&B          WANDB_RUN_ID, with WANDB_RESUME=allow
    MLflow       MLFLOW_RUN_ID
    Comet        COMET_EXPERIMENT_KEY
    ClearML      ``Task.init(reuse_last_task_id=…, continue_last_task=0)``: there is no variable for it
    Trackio      the run's name (the integration asks for ``resume="allow"`` itself)
    TensorBoard  the folder of its events, with ``purge_step``: the dead attempt's later points are hidden

What the dead attempt had logged beyond the checkpoint isn't logged once more: see ``logged.py``.
Variables are set for the integration's ``setup`` alone: a later Trainer of the process is another run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.tracker_runs import FILE, Runs, decode_runs, encode_runs
from vaultlayer_hf.trainer.logged import Logged, ask_tracker


class TrackedRun(Protocol):
    """What is asked of a Trainer's run on its vault."""

    @property
    def events(self) -> Events:
        """Where what is to be said is told."""

    def why_not(self, state: TrainerState) -> str | None:
        """Return why the training that begins isn't kept in the vault; None where it is."""

    def resumed_folder(self, args: TrainingArguments, state: TrainerState) -> Path | None:
        """Return the folder of the checkpoint that it goes on from; None for a training from the start."""

    def goes_back(self) -> bool:
        """Tell whether that is an older one than the newest: what was logged behind it counts no more."""

    def is_fork(self) -> bool:
        """Tell whether it begins from another run's checkpoint."""

    def callbacks(self) -> Iterable[Any]:
        """Return the Trainer's callbacks."""


class TrackersCallback(TrainerCallback):
    """Gives the Trainer's integrations the runs that they had. It has to stand ahead of them.

    Args:
        run: the Trainer's run on its vault.
    """

    def __init__(self, run: TrackedRun) -> None:
        self._run = run

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or self._run.why_not(state) is not None:
            return
        folder = self._run.resumed_folder(args, state)
        if folder is None or self._run.is_fork():  # a fork is a run of its own, in the tracker, too
            return
        runs = read_runs(folder)
        for callback in self._run.callbacks():
            name = _NAMES.get(type(callback).__name__)
            if name is None:
                continue
            try:
                self._continue(callback, name, runs.get(name, {}), args, state.global_step)
            except Exception as error:  # one of another version, or of the user's own under that name
                self._run.events.warn_once(
                    f"tracker {name}",
                    EventKind.NOTICE,
                    f"{type(callback).__name__} doesn't go on in the run that it had: {type(error).__name__}: {error}",
                )

    def _continue(
        self, callback: Any, name: str, run: dict[str, str], args: TrainingArguments, step: int
    ) -> None:
        if name == "tensorboard":
            _continue_tensorboard(callback, run, args, step)
            return
        if run:
            _set_up_within(callback, name, run, args)
        if not self._run.goes_back():
            _leave_out(callback, name)


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
        name = _NAMES.get(type(callback).__name__)
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


_NAMES = {
    "WandbCallback": "wandb",
    "TrackioCallback": "trackio",
    "MLflowCallback": "mlflow",
    "CometCallback": "comet",
    "ClearMLCallback": "clearml",
    "TensorBoardCallback": "tensorboard",
}
"""The tracker of each of transformers' integrations, by the class's name: importing a class may need its tracker."""
_RUNS: dict[str, Callable[[Any, TrainingArguments], dict[str, str]]] = {
    "wandb": _wandb_run,
    "trackio": _trackio_run,
    "mlflow": _mlflow_run,
    "comet": _comet_run,
    "clearml": _clearml_run,
    "tensorboard": _tensorboard_run,
}
_VARIABLES: Mapping[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "wandb": lambda run: {"WANDB_RUN_ID": run["id"], "WANDB_RESUME": "allow"},
    "mlflow": lambda run: {"MLFLOW_RUN_ID": run["id"]},
    "comet": lambda run: {"COMET_EXPERIMENT_KEY": run["id"]},
}


def _set_up_within(callback: Any, name: str, run: dict[str, str], args: TrainingArguments) -> None:
    """Have an integration that isn't set up yet do it with the run that it had."""
    if getattr(callback, "_initialized", True):
        return
    original = callback.setup

    def setup(*given: Any, **named: Any) -> Any:
        del callback.setup
        with ExitStack() as stack:
            stack.enter_context(_variables(_VARIABLES[name](run) if name in _VARIABLES else {}))
            if name == "clearml":
                stack.enter_context(_continued_task(callback._clearml.Task, run["id"]))
            if name != "trackio" or args.run_name:
                return original(*given, **named)
            args.run_name = run["name"]
            try:
                return original(*given, **named)
            finally:
                args.run_name = None

    callback.setup = setup


@contextmanager
def _continued_task(task: Any, number: str) -> Iterator[None]:
    """Have ClearML's ``Task.init`` go on with a task. Where the script has made one, the integration doesn't call it.

    ``continue_last_task=0``: steps keep their numbers, where True would count on from the last one.
    """
    original = task.__dict__["init"]

    def init(*args: Any, **kwargs: Any) -> Any:
        old = {"reuse_last_task_id": number, "continue_last_task": 0}
        try:
            return original.__get__(None, task)(*args, **{**kwargs, **old})
        except Exception:  # deleted meanwhile, or on another server: a task of its own, as without us
            return original.__get__(None, task)(*args, **kwargs)

    task.init = init
    try:
        yield
    finally:
        task.init = original


@contextmanager
def _variables(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for a while; none of them where the user has set the first."""
    if any(name in os.environ for name in list(variables)[:1]):
        variables = {}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _leave_out(callback: Any, name: str) -> None:
    """Don't tell an integration of what its tracker has been told before the last attempt died."""
    original = type(callback).on_log.__get__(callback)
    known: list[Logged] = []

    def on_log(args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        if not known:  # asked late: the integration sets itself up behind us
            known.append(ask_tracker(name, callback) or Logged())
        if known[0].holds(state.global_step, kwargs.get("logs") or ()):
            return None
        return original(args, state, control, **kwargs)

    callback.on_log = on_log


def _continue_tensorboard(callback: Any, run: dict[str, str], args: TrainingArguments, step: int) -> None:
    """Have TensorBoard's integration write on in its folder, with what lies behind a step hidden."""
    if callback.tb_writer is not None or callback._SummaryWriter is None:
        return
    named = _named_folder(callback, args)
    folder = named or (str(Path(str(args.output_dir)) / run["folder"]) if run.get("folder") else None)
    if folder is not None:
        callback.tb_writer = callback._SummaryWriter(log_dir=folder, purge_step=step + 1)


def _named_folder(callback: Any, args: TrainingArguments) -> str | None:
    """Return the folder for TensorBoard's events that the user names; None where the Trainer makes up one each time.

    transformers 5 takes it from a variable. Before, it is an argument whose default holds the time.
    """
    if hasattr(callback, "logging_dir"):
        return str(callback.logging_dir) if callback.logging_dir else None
    given = str(getattr(args, "logging_dir", "") or "")
    default = str(Path(str(args.output_dir)) / "runs") + os.sep
    return given if given and not given.startswith(default) else None
