"""Epochs that are asked for, where a later start's steps have other numbers of samples than the checkpoint's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback
from transformers import Trainer as Stock

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, Tokens, is_new, state_of, trainer
from vaultlayer_hf import VaultLayerCallback
from vaultlayer_hf.errors import OtherRunError
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.trainer.asked_epochs import StepsOfPass, TrainedEpochs, epochs_kept
from vaultlayer_hf.trainer.data_file import Record
from vaultlayer_hf.trainer.step_sizes import PlaceInPass, StepSizes
from vaultlayer_hf.trainer.trainer import Trainer

ROWS, EPOCHS = 16, 4
needs_own_batch = pytest.mark.skipif(
    not is_new(), reason="transformers 4 goes on with the batch size of the checkpoint"
)


class Counting(Trainer):
    """Notes by step the rows that were trained on, each by its first three tokens."""

    seen: dict[int, list[tuple[int, ...]]]

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        found = [tuple(row[:3].tolist()) for row in inputs["input_ids"]]
        self.__dict__.setdefault("seen", {}).setdefault(self.state.global_step + 1, []).extend(found)
        return super().training_step(model, inputs, *args, **kwargs)


def start(tmp_path: Path, batch: int, accumulation: int = 1, *callbacks: Any, **more: Any) -> Any:
    """A Trainer of four epochs of 16 rows."""
    named: dict[str, Any] = {
        "cls": Counting,
        "resume": str(tmp_path / "v"),
        "max_steps": -1,
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "save_steps": 1,
    }
    return trainer(
        tmp_path / "o", **{"callbacks": [*callbacks], "train_dataset": Tokens(ROWS), **named, **more}
    )


def break_off(tmp_path: Path, at: int, batch: int, accumulation: int = 1) -> None:
    """Train until the checkpoint of step ``at`` is committed."""
    with pytest.raises(Boom):
        start(tmp_path, batch, accumulation, FailAt(at + 1), Patient(tmp_path / "v")).train()


def times_trained(run: Any) -> Counter[Any]:
    """How often each row was trained on by the whole run: a Trainer's attributes come back with its checkpoint."""
    return Counter(row for rows in run.seen.values() for row in rows)


SIZES = [
    pytest.param(
        (2, 1), (4, 1), 18, 25, id="larger batch, behind the end by its steps", marks=needs_own_batch
    ),
    pytest.param((2, 1), (4, 1), 8, 20, id="larger batch", marks=needs_own_batch),
    pytest.param((4, 1), (2, 1), 6, 26, id="smaller batch", marks=needs_own_batch),
    pytest.param((2, 1), (2, 2), 18, 25, id="more accumulation, behind the end by its steps"),
    pytest.param((2, 2), (2, 1), 6, 26, id="less accumulation"),
]


@pytest.mark.parametrize(("then", "now", "at", "end"), SIZES)
def test_each_row_is_trained_on_once_an_epoch(
    then: tuple[int, int], now: tuple[int, int], at: int, end: int, tmp_path: Path
) -> None:
    """The epochs' rest is trained in this start's steps: no row is left out, and none comes once more."""
    break_off(tmp_path, at, *then)
    run = start(tmp_path, *now)
    run.train()
    assert (run.state.global_step, run.state.max_steps, run.state.epoch) == (end, end, EPOCHS)
    assert state_of(tmp_path / "v").finished == end
    counts = times_trained(run)
    assert set(counts.values()) == {EPOCHS}
    assert len(counts) == ROWS


@pytest.mark.parametrize(
    ("then", "now", "at", "words"),
    [
        pytest.param(
            (2, 1), (4, 1), 8, "32 in the checkpoint, 20 asked for", marks=needs_own_batch, id="larger batch"
        ),
        pytest.param((2, 1), (2, 2), 8, "32 in the checkpoint, 20 asked for", id="more accumulation"),
    ],
)
def test_other_steps_for_the_same_epochs_are_said_to_be_of_them(
    then: tuple[int, int], now: tuple[int, int], at: int, words: str, tmp_path: Path
) -> None:
    """Who asks for the same epochs, and never for a number of steps, is told why it differs, and what is left."""
    break_off(tmp_path, at, *then)
    run = start(tmp_path, *now)
    log = Recorder(run)
    run.train()
    assert run.state.global_step == 20
    (said,) = [one.message for one in log.of("notice") if one.message.startswith("max_steps: ")]
    assert said.startswith(
        f"max_steps: {words}: that is what num_train_epochs=4 comes to. The epochs are trained whole"
    )
    assert "what is left needs 12 more steps of this start's size" in said


ROUGH = [
    pytest.param(17, (2, 1), (8, 1), 7, 14, 8, id="17 rows, larger batch", marks=needs_own_batch),
    pytest.param(17, (4, 1), (3, 1), 3, 12, 12, id="17 rows, smaller batch", marks=needs_own_batch),
    pytest.param(33, (1, 1), (32, 1), 20, 20, 0, id="33 rows, a batch for nearly all", marks=needs_own_batch),
    pytest.param(16, (2, 1), (2, 2), 3, 6, 4, id="more accumulation, within a step"),
    pytest.param(16, (2, 1), (2, 4), 9, 18, 16, id="more accumulation, within a pass's first step"),
    pytest.param(16, (2, 1), (2, 4), 15, 30, 24, id="more accumulation, within a pass's last step"),
]


@pytest.mark.parametrize(("rows", "then", "now", "at", "trained", "kept"), ROUGH)
def test_no_row_is_left_out_where_steps_dont_fit(
    rows: int, then: tuple[int, int], now: tuple[int, int], at: int, trained: int, kept: int, tmp_path: Path
) -> None:
    """Rows of less than a step come once more, those of before in their order, and the run ends with its epochs.

    ``trained``: how many rows were, by the checkpoint's step; ``kept``: how many of these don't come once more.
    """
    data = Tokens(rows)
    with pytest.raises(Boom):
        start(tmp_path, *then, FailAt(at + 1), Patient(tmp_path / "v"), train_dataset=data).train()
    run = start(tmp_path, *now, train_dataset=data)
    log = Recorder(run)
    run.train()
    end = run.state.global_step
    assert (run.state.epoch, run.state.max_steps, state_of(tmp_path / "v").finished) == (EPOCHS, end, end)
    before = [row for step in range(1, at + 1) for row in run.seen[step]]
    assert len(before) == trained
    behind = [row for step in range(at + 1, end + 1) for row in run.seen[step]]
    assert times_trained(run) == Counter(before[kept:]) + Counter(dict.fromkeys(set(behind), EPOCHS))
    assert len(set(behind)) == rows
    if then[0] == now[0]:
        assert behind[: trained - kept] == before[kept:]
    assert not [one for one in log.of("inexact") if "the loop that trains isn't" in one.message]


@needs_own_batch
@pytest.mark.parametrize(("at", "end"), [(6, 10), (7, 10), (9, 11)])
def test_epochs_whose_last_batch_is_left_out(at: int, end: int, tmp_path: Path) -> None:
    """Ten rows are 3 steps of two batches of 2, and 2 steps of a batch of 4: as many samples, and other epochs."""
    more: dict[str, Any] = {"train_dataset": Tokens(10), "dataloader_drop_last": True}
    with pytest.raises(Boom):
        start(tmp_path, 2, 2, FailAt(at + 1), Patient(tmp_path / "v"), **more).train()
    run = start(tmp_path, 4, 1, **more)
    run.train()
    assert (run.state.global_step, run.state.max_steps, run.state.epoch) == (end, end, EPOCHS)
    assert state_of(tmp_path / "v").finished == end
    assert [len(run.seen[step]) for step in range(at + 1, end + 1)] == [4] * (end - at)


@needs_own_batch
def test_a_script_that_pulls_itself_is_told_where_the_last_batch_is_left_out(tmp_path: Path) -> None:
    """Stock takes the last of four passes for trained: that it would train nothing is an error, with the remedy."""
    more: dict[str, Any] = {"train_dataset": Tokens(10), "dataloader_drop_last": True, "save_steps": 1}
    with pytest.raises(Boom):
        start(tmp_path, 2, 2, FailAt(10), Patient(tmp_path / "v"), **more).train()
    vault = VaultLayerCallback(str(tmp_path / "v"))
    own = {"max_steps": -1, "num_train_epochs": EPOCHS, "per_device_train_batch_size": 4}
    run = trainer(tmp_path / "o", cls=Stock, callbacks=[vault], **own, **more)
    with pytest.raises(OtherRunError, match=r"so nothing would be trained: .* max_steps=11"):
        run.train(resume_from_checkpoint=vault.pull())


@pytest.mark.parametrize(
    ("then", "now", "likeness", "differs"),
    [
        pytest.param((4, 1, 2), (2, 2, 5), {}, True, id="ranks against accumulation, a rest left out"),
        pytest.param((4, 1, 3), (2, 2, 5), {}, False, id="the same, kept"),
        pytest.param((8, 1, 4), (4, 2, 4), {"samples": 16}, True, id="split_batches, ranks and accumulation"),
        pytest.param((8, 1, 4), (4, 2, 4), {}, False, id="other data, for all that is known"),
        pytest.param((4, 1, 4), (4, 1, 5), {"samples": 16}, False, id="a sampler's own batches"),
    ],
)
def test_as_many_samples_a_step_and_other_steps_a_pass(
    then: tuple[int, int, int], now: tuple[int, int, int], likeness: dict[str, Any], differs: bool
) -> None:
    """Steps of as many samples are others where a pass over the same rows has another number of them."""
    trained = TrainedEpochs(6, 1.5, StepSizes(*then), likeness=likeness)
    assert trained.differs(StepSizes(*now), likeness) is differs


def test_a_rest_of_a_pass_that_is_no_step(tmp_path: Path) -> None:
    """Up to 4.51 two batches of ten are no step of four: the next pass begins, as the Trainer counts."""
    with pytest.raises(Boom):
        start(tmp_path, 2, 1, FailAt(10), Patient(tmp_path / "v"), train_dataset=Tokens(20)).train()
    run = start(tmp_path, 2, 4, train_dataset=Tokens(20))
    log = Recorder(run)
    run.train()
    assert run.state.global_step == 9 + (EPOCHS * 3 - 2 if is_new() else (EPOCHS - 1) * 2)
    assert state_of(tmp_path / "v").finished == run.state.global_step
    assert [len(run.seen[step]) for step in (10, 11)] == ([4, 8] if is_new() else [8, 8])
    words = [one.message for one in log.of("inexact")]
    assert any("accumulation: 1 then, 4 now" in one for one in words)
    assert not [one for one in words if "the loop that trains isn't" in one or "takes step" in one]


@pytest.mark.parametrize("pulls", [False, True], ids=["resume=", "a script that pulls itself"])
def test_a_checkpoint_that_doesnt_say_what_a_step_was_is_left_to_the_trainer(
    pulls: bool, tmp_path: Path
) -> None:
    """Its steps are taken for this start's: 3 epochs of 10 batches end where an unbroken run does, and are over then.

    Up to 4.51 the Trainer counts 2 steps of 4 batches in each, and trains 3.
    """
    settings = Settings(vault=str(tmp_path / "v"), exact_data="off")
    more: dict[str, Any] = {
        "train_dataset": Tokens(20),
        "gradient_accumulation_steps": 4,
        "max_steps": -1,
        "num_train_epochs": 3,
        "save_steps": 1,
    }
    end = trainer(tmp_path / "o", resume=settings, **more).train().global_step if pulls else 0
    if pulls:
        vault = VaultLayerCallback(settings)
        run = trainer(tmp_path / "o", cls=Stock, callbacks=[vault], **more)
        log = Recorder(vault)
        run.train(resume_from_checkpoint=vault.pull())
        assert vault.finished == end
        assert not [one for one in log.of("inexact") if "another number of samples" in one.message]
        return
    unbroken = trainer(tmp_path / "u", cls=Stock, **more).train().global_step
    with pytest.raises(Boom):
        trainer(
            tmp_path / "o", resume=settings, callbacks=[FailAt(4), Patient(tmp_path / "v")], **more
        ).train()
    assert trainer(tmp_path / "o", resume=settings, **more).train().global_step == unbroken


def test_a_script_that_pulls_itself_is_told_by_the_trainers_own_count(tmp_path: Path) -> None:
    """A rest of batches is a step of a pass since 4.52 only: what is named is what the Trainer would count."""
    more: dict[str, Any] = {"train_dataset": Tokens(20), "save_steps": 1}
    with pytest.raises(Boom):
        start(tmp_path, 2, 1, FailAt(5), Patient(tmp_path / "v"), **more).train()
    vault = VaultLayerCallback(str(tmp_path / "v"))
    own = {"max_steps": -1, "num_train_epochs": EPOCHS, "gradient_accumulation_steps": 4}
    run = trainer(tmp_path / "o", cls=Stock, callbacks=[vault], **own, **more)
    log = Recorder(vault)
    run.train(resume_from_checkpoint=vault.pull())
    due = 4 + EPOCHS * (3 if is_new() else 2) - 1
    assert any(f"max_steps={due}" in one.message for one in log.of("inexact"))


def test_a_checkpoint_of_an_older_release_is_compared(tmp_path: Path) -> None:
    """Its record has what the sizes follow from, and not the sizes."""
    (tmp_path / "trainer_state.json").write_text('{"global_step": 7, "epoch": 0.7777777777777778}')
    likeness = {"batch size": 2, "accumulation": 1, "world size": 1, "samples": 17, "last batches": "kept"}
    Record(None, likeness).write(tmp_path, 0)
    trained = TrainedEpochs.read(tmp_path)
    assert trained is not None
    assert trained.sizes == StepSizes(2, 1, 9)
    assert [trained.differs(one, likeness) for one in (StepSizes(8, 1, 3), StepSizes(1, 2, 17))] == [
        True,
        False,
    ]
    assert trained.place(StepSizes(8, 1, 3)) == (0, 1)
    Record(None, {**likeness, "batch size": None}).write(tmp_path, 0)
    unknown = TrainedEpochs.read(tmp_path)
    assert unknown is not None
    assert not unknown.differs(StepSizes(8, 1, 3), likeness)


@pytest.mark.skipif(not is_new(), reason="transformers 4.51 has no sequence parallelism")
def test_sequence_parallelism_is_left_to_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass has as many times the loader's batches as ranks share a sequence, and only the Trainer knows."""
    from accelerate import ParallelismConfig

    run = start(tmp_path, 4)
    run.vault.pull()
    loader = run.get_train_dataloader()
    noted: list[PlaceInPass | None] = []
    trained = TrainedEpochs(18, 2.25, StepSizes(2, 1, 8))
    counted = run.set_initial_training_values(run.args, loader)
    with epochs_kept(run, run.vault.training, trained, noted.append):
        assert run.set_initial_training_values(run.args, loader)[-1] == 25
    monkeypatch.setattr(run.accelerator.state, "parallelism_config", ParallelismConfig(sp_size=2))
    with epochs_kept(run, run.vault.training, trained, noted.append):
        assert run.set_initial_training_values(run.args, loader)[-1] == 2 * counted[-1]
    assert noted == [(2, 1), None]
    run.vault.close()


def test_a_run_of_mixed_steps_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    """A later start has the sizes of its checkpoint, and its step is a number of these all the same not."""
    break_off(tmp_path, 18, 2)
    break_off(tmp_path, 22, 2, 2)
    run = start(tmp_path, 2, 2)
    run.train()
    assert (run.state.global_step, run.state.max_steps) == (25, 25)
    assert set(times_trained(run).values()) == {EPOCHS}


def test_a_run_that_is_over_stays_over_with_smaller_steps(tmp_path: Path) -> None:
    """Smaller steps are more of them, and no more epochs."""
    start(tmp_path, 2, 2).train()
    run = start(tmp_path, 2, 1)
    run.train()
    assert (run.state.global_step, "seen" in vars(run)) == (16, False)


def test_more_epochs_go_on_with_larger_steps(tmp_path: Path) -> None:
    """One epoch more than it was over with is eight rows a step of this start's."""
    start(tmp_path, 2, 2).train()
    run = start(tmp_path, 2, 4, num_train_epochs=EPOCHS + 1)
    run.train()
    assert (run.state.global_step, run.state.epoch) == (18, EPOCHS + 1)


@pytest.mark.parametrize("accumulation", [1, 2], ids=["smaller steps", "the same steps"])
def test_half_an_epoch_goes_on_to_a_whole_one(accumulation: int, tmp_path: Path) -> None:
    """A checkpoint has its epochs rounded up, and half a one isn't the whole that is asked for later."""
    start(tmp_path, 2, 2, num_train_epochs=0.5).train()
    assert state_of(tmp_path / "v").finished == 2
    for _ in range(2):  # the second one is over
        run = start(tmp_path, 2, accumulation, num_train_epochs=1)
        run.train()
        assert (run.state.global_step, run.state.epoch) == (2 + 4 // accumulation, 1.0)
        assert state_of(tmp_path / "v").finished == run.state.global_step


@pytest.mark.parametrize(("epochs", "finished"), [(0.5, 2), (1, None)])
def test_half_an_epoch_is_over_for_a_script_that_pulls_itself(
    epochs: float, finished: int | None, tmp_path: Path
) -> None:
    """It is told that the run is over where the same half is asked for, and not where the whole epoch is."""
    start(tmp_path, 2, 2, num_train_epochs=0.5).train()
    vault = VaultLayerCallback(str(tmp_path / "v"))
    own = {"max_steps": -1, "num_train_epochs": epochs, "gradient_accumulation_steps": 2}
    trainer(tmp_path / "o", cls=Stock, callbacks=[vault], train_dataset=Tokens(ROWS), **own)
    log = Recorder(vault)
    vault.pull()
    assert vault.finished == finished
    assert any("this run is over" in one.message for one in log.events) == (finished is not None)
    vault.close()


def test_a_run_that_was_stopped_early_stays_so_with_smaller_steps(tmp_path: Path) -> None:
    """Only more epochs than it was to train then take it behind its early stop."""
    more: dict[str, Any] = {
        "eval_dataset": Tokens(4),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "metric_for_best_model": "eval_loss",
        "load_best_model_at_end": True,
        "learning_rate": 0.0,
    }
    start(tmp_path, 2, 2, EarlyStoppingCallback(1), **more).train()
    stopped = state_of(tmp_path / "v").finished
    assert stopped is not None
    assert stopped < 16
    run = start(tmp_path, 2, 1, EarlyStoppingCallback(1), **more)
    run.train()
    assert run.state.global_step == stopped


@pytest.mark.parametrize(("at", "refused"), [(18, True), (8, False)])
def test_a_script_that_pulls_itself_is_told(at: int, refused: bool, tmp_path: Path) -> None:
    """Where nobody can tell the Trainer's loop, what would be left out is an error or a warning with the remedy."""
    break_off(tmp_path, at, 2)
    vault = VaultLayerCallback(str(tmp_path / "v"))
    run = trainer(
        tmp_path / "o",
        cls=Stock,
        callbacks=[vault],
        train_dataset=Tokens(ROWS),
        max_steps=-1,
        num_train_epochs=EPOCHS,
        gradient_accumulation_steps=2,
        save_steps=1,
    )
    log = Recorder(vault)
    due = at + (EPOCHS * ROWS - 2 * at) // 4
    if refused:
        with pytest.raises(OtherRunError, match=rf"so nothing would be trained: .* max_steps={due}"):
            run.train(resume_from_checkpoint=vault.pull())
        return
    run.train(resume_from_checkpoint=vault.pull())
    assert any(f"max_steps={due}" in one.message for one in log.of("inexact"))


def test_a_number_that_says_where_a_checkpoint_is() -> None:
    """Asked for the checkpoint's step it answers with its place; it is a plain number in all else."""
    steps = StepsOfPass(8, 36, PlaceInPass(2, 2))
    assert (36 // steps, 36 % steps) == (2, 2)
    assert (35 // steps, 35 % steps, steps, list(range(7, steps))) == (4, 3, 8, [7])
    assert type(steps + 1) is int


def test_a_folder_that_doesnt_say_how_far_it_is(tmp_path: Path) -> None:
    """It is left to the Trainer."""
    assert TrainedEpochs.read(tmp_path) is None
    (tmp_path / "trainer_state.json").write_text('{"global_step": 4, "epoch": null}')
    assert TrainedEpochs.read(tmp_path) is None
