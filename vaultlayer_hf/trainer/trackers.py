"""One run in the experiment tracker over all attempts of a training, and no step in it twice.

Each start of a Trainer begins another run in W&B, Trackio, MLflow, Comet, and another folder of TensorBoard's. So which
run the tracker had is kept with each checkpoint (kept_runs.py), and given back to the Trainer's own integration as it
sets itself up behind a resume, unless the user has set one:

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

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.trainer.kept_runs import TRACKERS, read_runs
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
            name = TRACKERS.get(type(callback).__name__)
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
