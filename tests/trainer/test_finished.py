"""A run that is over stays over; with more asked for it goes on; any other stop is one to go on from."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.trainer.conftest import Reference
from tests.trainer.kit import (
    STEPS,
    Boom,
    Do,
    FailAt,
    Patient,
    Recorder,
    Tokens,
    state_of,
    steps_of,
    trainer,
    weights,
)
from vaultlayer_hf import VaultLayerCallback
from vaultlayer_hf.trainer.over import EarlierRun, is_over


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault of a run that has trained its 8 steps (10 rows: an epoch is 5 steps)."""
    folder = tmp_path_factory.mktemp("finished")
    trainer(folder / "out", resume=folder / "vault").train()
    return folder / "vault"


@pytest.fixture
def vault(finished: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(finished, tmp_path / "vault"))


def random_state(folder: Path) -> Any:
    """Torch's random state at the save of a checkpoint, which the last one of a training ends with."""
    return torch.load(folder / "rng_state.pth", weights_only=False)["cpu"]


def test_trains_no_further_step(vault: Path, tmp_path: Path, reference: Reference) -> None:
    """A finished run is restored, trains no step, commits nothing, says so, and returns what it ended with.

    What the script draws next is what it draws behind an unbroken training.
    """
    steps: list[int] = []
    again = trainer(
        tmp_path / "out", resume=vault, callbacks=[Do(on_step_end=lambda s: steps.append(s.global_step))]
    )
    record = Recorder(again)
    before = state_of(vault)
    torch.manual_seed(99)
    output = again.train()
    assert torch.equal(torch.get_rng_state(), random_state(tmp_path / "out" / "checkpoint-8"))
    assert steps == []
    assert weights(again.model) == reference.weights
    assert [(event.kind, event.fields.get("step")) for event in record.events][-2:] == [
        ("finished", 8),
        ("finish", 8),
    ]
    assert state_of(vault).commits == before.commits
    assert isinstance(output, transformers.trainer_utils.TrainOutput)
    assert output.global_step == STEPS
    assert output.metrics == before.metrics
    assert output.training_loss == before.metrics["train_loss"]
    # The console's callback takes total_flos out of what stock returns, once it is logged.
    assert set(output.metrics) - {"total_flos"} == set(reference.metrics) - {"total_flos"}
    assert again.is_in_train is False
    assert again.evaluate(Tokens(2))["eval_loss"] > 0  # and it can be used like any trained one


@pytest.mark.parametrize(
    ("more", "end"), [({"max_steps": 10}, 10), ({"max_steps": -1, "num_train_epochs": 2}, 10)]
)
def test_goes_on_with_more_asked_for(more: dict[str, Any], end: int, vault: Path, tmp_path: Path) -> None:
    """More steps or more epochs make a finished run go on from where it ended, and end there."""
    again = trainer(tmp_path / "out", resume=vault, **more)
    steps: list[int] = []
    again.add_callback(Do(on_step_end=lambda state: steps.append(state.global_step)))
    assert again.train().global_step == end
    assert steps == [9, 10]
    assert state_of(vault).finished == end


def test_fewer_asked_for_is_over_too(vault: Path, tmp_path: Path) -> None:
    """A run of which fewer steps are asked for than it has trained is over, and says so."""
    again = trainer(tmp_path / "out", resume=vault, max_steps=6)
    record = Recorder(again)
    assert again.train().global_step == STEPS
    assert record.of("finished")


def test_fewer_asked_for_is_no_end(tmp_path: Path) -> None:
    """A script that asks for its epochs one by one goes on where it broke off: asking for fewer isn't the run's end."""
    vault, more = tmp_path / "vault", {"callbacks": [Patient(tmp_path / "vault"), FailAt(7)]}
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=vault, **more).train()
    again = trainer(tmp_path / "b", resume=vault, max_steps=4)
    record = Recorder(again)
    assert again.train().global_step == 6
    assert "at step 6 of 8, and 4 are asked for now" in record.of("finished")[0].message
    assert state_of(vault).finished is None
    again.args.max_steps = STEPS
    assert again.train().global_step == STEPS
    assert state_of(vault).finished == STEPS


def test_callback_alone_says_what_stock_does(vault: Path, tmp_path: Path) -> None:
    """With the callback alone ``finished`` tells that the run is over; the step that stock trains isn't committed."""
    before = state_of(vault).commits
    callback = VaultLayerCallback(vault)
    again = trainer(tmp_path / "out", cls=transformers.Trainer, callbacks=[callback])
    record = Recorder(callback)
    path = callback.pull()
    assert callback.finished == STEPS
    assert again.train(resume_from_checkpoint=path).global_step == STEPS + 1
    assert "isn't committed" in record.of("finished")[0].message
    assert state_of(vault).commits == before
    assert state_of(vault).finished == STEPS


def test_callback_alone_goes_on_with_more_asked_for(vault: Path, tmp_path: Path) -> None:
    """With more steps asked for, ``finished`` of the callback alone is None, and the run goes on."""
    callback = VaultLayerCallback(vault)
    again = trainer(tmp_path / "out", cls=transformers.Trainer, callbacks=[callback], max_steps=9)
    path = callback.pull()
    assert callback.finished is None
    assert again.train(resume_from_checkpoint=path).global_step == 9
    assert state_of(vault).finished == 9


def _early(patience: int = 1) -> dict[str, Any]:
    """Arguments of a run that an EarlyStoppingCallback stops at step 6: its metric gets worse from step 4 on."""
    losses = {2: 3.0, 4: 2.0, 6: 5.0, 8: 6.0, 9: 7.0}

    class Worse(transformers.EarlyStoppingCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
            metrics["eval_loss"] = losses[state.global_step]
            super().on_evaluate(args, state, control, metrics, **kwargs)

    return {
        "callbacks": [Worse(patience)],
        "eval_dataset": Tokens(2),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "load_best_model_at_end": True,
    }


def test_early_stop_is_an_end(tmp_path: Path) -> None:
    """A run that EarlyStopping has stopped is over: its last step is committed, and the next start trains none."""
    vault = tmp_path / "vault"
    first = trainer(tmp_path / "a", resume=vault, save_steps=2, **_early())
    assert first.train().global_step == 6
    assert (steps_of(vault)[-1], state_of(vault).finished, state_of(vault).best_step) == (6, 6, 4)

    again = trainer(tmp_path / "b", resume=vault, save_steps=2, **_early())
    record = Recorder(again)
    output = again.train()
    assert output.global_step == 6
    assert record.of("finished")
    assert weights(again.model) == weights(first.model)  # of step 4, the best, on the new disk
    assert again.state.best_model_checkpoint == str(tmp_path / "b" / "checkpoint-4")
    assert output.metrics == state_of(vault).metrics

    more = trainer(tmp_path / "c", resume=vault, save_steps=2, max_steps=9, **_early(patience=3))
    assert more.train().global_step == 9


def test_a_named_step_goes_on_behind_an_early_stop(tmp_path: Path) -> None:
    """VAULT@STEP of the step of an early stop goes on there with more patience, which the start before it has said."""
    vault = tmp_path / "vault"
    trainer(tmp_path / "a", resume=vault, save_steps=2, **_early()).train()
    patient = {"save_steps": 2, **_early(patience=3)}
    over = trainer(tmp_path / "b", resume=vault, **patient)
    record = Recorder(over)
    assert over.train().global_step == 6
    assert (
        f"it was stopped early, by its metric: to go on there, with more patience, say, name file://{vault}@6"
        in (record.of("finished")[0].message)
    )
    for _ in range(2):  # behind that it is over as any run
        assert trainer(tmp_path / "c", resume=f"{vault}@6", **patient).train().global_step == STEPS
        assert state_of(vault).finished == STEPS


@pytest.mark.parametrize("added", ["before", "after"])
def test_stop_by_a_clock_is_no_end(added: str, tmp_path: Path, reference: Reference) -> None:
    """A callback that stops the training in time loses no step, and the next start goes on, to the same weights.

    Wherever it stands among the callbacks, also added after the Trainer was made.
    """

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop |= state.global_step == 5

    vault = tmp_path / "vault"
    first = trainer(tmp_path / "a", resume=vault, callbacks=[Clock()] if added == "before" else [])
    if added == "after":
        first.add_callback(Clock())
    record = Recorder(first)
    assert first.train().global_step == 5
    assert steps_of(vault)[-1] == 5
    assert state_of(vault).finished is None
    assert "goes on from there" in record.of("stopped")[0].message

    again = trainer(tmp_path / "b", resume=vault)
    assert again.train().global_step == STEPS
    assert weights(again.model) == reference.weights


class StopsInTime(transformers.TrainerCallback):
    """Stops the training behind its third step, as one that watches the clock; ``both``: and the epoch with it."""

    def __init__(self, *, both: bool) -> None:
        self.both = both

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            control.should_training_stop = True
            control.should_epoch_stop = self.both


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("saves", ["steps", "epoch"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_stop_within_an_epoch_leaves_none_of_it_out(
    epochs: int, saves: str, both: bool, tmp_path: Path
) -> None:
    """A callback that stops the training, whether or not it also ends the epoch, ends neither: all of it is trained."""
    vault = tmp_path / "vault"
    # An epoch is 5 steps.
    more: dict[str, Any] = {"max_steps": -1, "num_train_epochs": epochs, "save_strategy": saves}
    unbroken = trainer(tmp_path / "u", **more)
    unbroken.train()
    first = trainer(tmp_path / "a", resume=vault, callbacks=[StopsInTime(both=both)], **more)
    assert first.train().global_step == 3
    assert (steps_of(vault)[-1], state_of(vault).finished) == (3, None)
    again = trainer(tmp_path / "b", resume=vault, **more)
    assert again.train().global_step == 5 * epochs
    assert weights(again.model) == weights(unbroken.model)
    assert state_of(vault).finished == 5 * epochs


def test_end_that_was_not_noted(tmp_path: Path, reference: Reference) -> None:
    """A run that was stopped after its last commit and before its end was noted is over all the same."""
    vault = tmp_path / "vault"

    def stop(state: Any) -> None:
        raise Boom

    first = trainer(tmp_path / "a", resume=vault, callbacks=[Do(on_train_end=stop)])
    with pytest.raises(Boom):
        first.train()
    assert (steps_of(vault)[-1], state_of(vault).finished) == (STEPS, None)
    again = trainer(tmp_path / "b", resume=vault)
    output = again.train()
    assert output.global_step == STEPS
    assert math.isnan(output.training_loss)
    assert weights(again.model) == reference.weights
    assert state_of(vault).finished == STEPS


def test_broken_run_is_not_over(tmp_path: Path) -> None:
    """A failure leaves no end in the log."""
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=tmp_path / "vault", callbacks=[FailAt(5)]).train()
    assert state_of(tmp_path / "vault").finished is None


@pytest.mark.parametrize(
    ("past", "asked", "loads_best", "over"),
    [
        (EarlierRun(8, 8), 8, False, True),  # at the end, whatever the log says
        (EarlierRun(8, 8), 9, False, False),
        (EarlierRun(6, 8, finished=6), 8, False, True),  # stopped early
        (EarlierRun(6, 8, finished=6), 9, False, False),  # and more asked for
        (EarlierRun(4, 8, finished=6), 8, False, False),  # went back behind its end
        (EarlierRun(4, 8, finished=8, best_step=4), 8, True, True),  # only the best was saved
        (EarlierRun(4, 8, finished=8, best_step=4), 8, False, False),  # and isn't what the end is
        (EarlierRun(4, 8), 8, True, False),
    ],
)
def test_is_over(past: EarlierRun, asked: int, loads_best: bool, over: bool) -> None:
    """The rule by which a run counts as over, case by case."""
    assert is_over(past, asked, loads_best=loads_best) is over
