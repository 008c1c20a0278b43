"""A start that asks for something else than the checkpoint was made with is told so, or refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback

from tests.trainer.conftest import Reference
from tests.trainer.kit import (
    Boom,
    FailAt,
    Patient,
    Recorder,
    judged_by,
    model,
    state_of,
    trainer,
    weights,
)
from vaultlayer_hf import Settings, Trainer, VaultLayerCallback, errors
from vaultlayer_hf.state.asked import FILE, Asked, check_asked, read_asked
from vaultlayer_hf.trainer.data_file import Record, read_record


def rows(seed: int, size: int = 20) -> list[dict[str, torch.Tensor]]:
    """A list of samples that follow from a seed: a fold."""
    tokens = torch.randint(0, 64, (size, 16), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": row} for row in tokens]


def broken_off(tmp_path: Path, **more: Any) -> None:
    """Train 5 steps of a run and break it off, with commits up to step 4."""
    run = trainer(
        tmp_path / "o", resume=str(tmp_path / "v"), callbacks=[FailAt(5), Patient(tmp_path / "v")], **more
    )
    with pytest.raises(Boom):
        run.train()


def said(tmp_path: Path, **more: Any) -> list[str]:
    """Go on with it, and return what was said."""
    run = trainer(tmp_path / "o", resume=str(tmp_path / "v"), **more)
    record = Recorder(run)
    run.train()
    return [event.message for event in record.of("notice")]


CHECKPOINTS, STARTS = (
    "the checkpoint's holds; to have the other, begin a fork",
    "this start's holds from here on",
)
OTHER: dict[str, tuple[Any, str, str]] = {
    "learning_rate": (1e-4, "0.01 in the checkpoint, 0.0001 asked for", CHECKPOINTS),
    "weight_decay": (0.25, "0.0 in the checkpoint, 0.25 asked for", CHECKPOINTS),
    "adam_beta1": (0.5, "0.9 in the checkpoint, 0.5 asked for", CHECKPOINTS),
    "adam_beta2": (0.9, "0.999 in the checkpoint, 0.9 asked for", CHECKPOINTS),
    "adam_epsilon": (1e-4, "1e-08 in the checkpoint, 0.0001 asked for", CHECKPOINTS),
    "lr_scheduler_type": (
        "cosine_with_min_lr",
        "linear in the checkpoint, cosine_with_min_lr asked for",
        STARTS,
    ),
    "lr_scheduler_kwargs": (
        {"min_lr_rate": 0.5},
        '{} in the checkpoint, {"min_lr_rate": 0.5} asked for',
        STARTS,
    ),
    "warmup_steps": (2, "0 in the checkpoint, 2 asked for", STARTS),
    "max_grad_norm": (0.5, "1.0 in the checkpoint, 0.5 asked for", STARTS),
    "label_smoothing_factor": (0.1, "0.0 in the checkpoint, 0.1 asked for", STARTS),
    "neftune_noise_alpha": (1.0, "None in the checkpoint, 1.0 asked for", STARTS),
    "bf16": (True, "False in the checkpoint, True asked for", STARTS),
}
"""Another value than the common schedule has; how both are named, and which of them is said to hold."""


class Doubled(Trainer):
    """Has a loss of its own."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) * 2


@pytest.mark.filterwarnings("ignore:`torch.cpu.amp.autocast:FutureWarning")  # of an older accelerate
def test_other_arguments_are_said_and_hold_as_is_said(tmp_path: Path) -> None:
    """Each argument that shapes a run is named with both values and with which holds, and that one is what holds."""
    broken_off(tmp_path)
    other = {name: value for name, (value, _, _) in OTHER.items()}
    run = trainer(tmp_path / "o", cls=Doubled, resume=str(tmp_path / "v"), **other)
    record = Recorder(run)
    run.train()
    lines = [event.message for event in record.of("notice")]
    for name, (_, values, holds) in OTHER.items():
        assert [line for line in lines if line.startswith(f"{name}: {values}: {holds}")], (name, lines)
    assert (
        f"compute_loss: Trainer.compute_loss in the checkpoint, Doubled.compute_loss asked for: {STARTS}"
        in lines
    )
    group = run.optimizer.param_groups[0]
    own = {name: group[name] for name in ("initial_lr", "weight_decay", "betas", "eps")}
    assert own == {"initial_lr": 1e-2, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}
    assert group["lr"] == pytest.approx(5e-3), "the end of this start's schedule, from the checkpoint's rate"
    assert run.accelerator.mixed_precision == "bf16"
    assert run.label_smoother.epsilon == 0.1


def test_another_attention_is_said(tmp_path: Path) -> None:
    """How attention is computed isn't in a model's configuration file, and changes the numbers all the same."""
    broken_off(tmp_path)
    other = model()
    other.config._attn_implementation = "eager"
    run = trainer(tmp_path / "o", resume=tmp_path / "v", model=other)
    record = Recorder(run)
    run.train()
    lines = [event.message for event in record.of("notice")]
    assert lines == [f"attn_implementation: sdpa in the checkpoint, eager asked for: {STARTS}"]


def test_what_a_checkpoint_was_made_with_is_what_held(tmp_path: Path) -> None:
    """A rate that was asked for and didn't hold is said at each start that asks for it, and at no other one."""
    broken_off(tmp_path)
    rate = "learning_rate: 0.01 in the checkpoint, 0.001 asked for: the checkpoint's holds"
    for steps in (12, 16):  # more of them each time: there are checkpoints of this start
        lines = said(tmp_path, max_steps=steps, learning_rate=1e-3)
        assert [line for line in lines if line.startswith(rate)], lines
    assert not [line for line in said(tmp_path, max_steps=20) if line.startswith("learning_rate")]
    (asked,) = {read_asked(path).arguments["learning_rate"] for path in (tmp_path / "o").glob("checkpoint-*")}
    assert asked == 1e-2


def test_other_cadences_are_said_and_the_checkpoints_hold(tmp_path: Path) -> None:
    """Steps between two saves, two evaluations and two logs are the checkpoint's, as in stock: a line for each."""
    out = tmp_path / "o"
    broken_off(tmp_path, save_steps=2, logging_steps=2)
    lines = said(tmp_path, save_steps=5, logging_steps=5, eval_steps=5)
    for name, now in (("save_steps", 5), ("logging_steps", 5)):
        words = f"{name}: 2 in the checkpoint, {now} asked for: the checkpoint's holds, as with transformers alone"
        assert [line for line in lines if line.startswith(words)], lines
    assert not [line for line in lines if line.startswith("eval_steps")], "nothing is evaluated"
    assert (out / "checkpoint-6").exists()
    assert not (out / "checkpoint-5").exists()


def _masking(batch: list[dict[str, Any]]) -> dict[str, Any]:
    found = {name: torch.stack([row[name] for row in batch]) for name in ("input_ids", "labels")}
    found["labels"][:, :8] = -100
    return found


def test_what_else_shapes_a_run_is_said(tmp_path: Path) -> None:
    """Another dropout of the model's, another collator, other data to evaluate on, and more steps: a line for each."""
    judged = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"}
    broken_off(tmp_path, eval_dataset=rows(1, 2), **judged)
    other = model()
    other.config.attention_dropout = 0.5
    run = trainer(
        tmp_path / "o", resume=tmp_path / "v", model=other, eval_dataset=rows(2, 2), max_steps=9, **judged
    )
    run.data_collator = _masking
    record = Recorder(run)
    run.train()
    lines = sorted(event.message for event in record.of("notice"))
    assert [line.partition(" in the checkpoint, ")[0].split(": ")[0] for line in lines] == [
        "config.attention_dropout",
        "data_collator",
        "evaluation data",
        "max_steps",
    ]
    assert lines[0] == f"config.attention_dropout: 0.2 in the checkpoint, 0.5 asked for: {STARTS}"
    assert lines[1].endswith(f"_masking asked for: {STARTS}")
    assert lines[2] == f"evaluation data: others than then: {STARTS}"
    assert lines[3] == (
        "max_steps: 8 in the checkpoint, 9 asked for: this start's holds, also for the schedule of the learning rate"
    )


def test_another_seed_changes_nothing(tmp_path: Path, reference: Reference) -> None:
    """Random numbers go on from the checkpoint's state, as is said: the run ends as one with the first seed."""
    broken_off(tmp_path)
    run = trainer(tmp_path / "o", resume=str(tmp_path / "v"), seed=4)
    record = Recorder(run)
    run.train()
    assert "seed: 3 in the checkpoint, 4 asked for: random numbers go on from the checkpoint's state" in [
        event.message for event in record.of("notice")
    ]
    assert weights(run.model) == reference.weights


@pytest.mark.parametrize("name", ["seed", "data_seed"])
def test_a_run_of_a_sweep_is_never_handed_the_weights_of_another(name: str, tmp_path: Path) -> None:
    """Another seed on a vault whose run is over is refused, by its name; another rate is said to train nothing."""
    trainer(tmp_path / "o", resume=tmp_path / "v", max_steps=2, **{name: 1}).train()
    lines = said(tmp_path, max_steps=1, **{name: 1}, learning_rate=1e-4)
    assert not [line for line in lines if line.startswith("max_steps: ")], "no step is trained, which is said"
    assert [
        line for line in lines if line.startswith("learning_rate: ") and "nothing is trained with" in line
    ]
    with pytest.raises(errors.OtherRunError, match=rf"trained with {name}=1, .* asks for {name}=2.*seed-2"):
        said(tmp_path, max_steps=2, **{name: 2})


def test_another_machine_is_said_and_the_place_is_kept(tmp_path: Path, reference: Reference) -> None:
    """Other versions and another accumulation are said with both values, and no sample is trained on twice."""
    broken_off(tmp_path)
    folder = tmp_path / "o" / "checkpoint-4"
    named = shutil.move(folder, tmp_path / "elsewhere")
    record = read_record(named, 0)
    assert isinstance(record, Record)
    likeness = {**record.likeness, "torch": "1.0", "accumulation": 2}
    replace(record, likeness=likeness).write(named, 0)
    run = trainer(tmp_path / "p", resume=str(tmp_path / "w"))
    seen = Recorder(run)
    run.train(resume_from_checkpoint=str(named))
    (said,) = [event.message for event in seen.of("inexact")]
    assert "accumulation: 2 then, 1 now" in said
    assert f"torch: 1.0 then, {torch.__version__} now" in said
    assert weights(run.model) == reference.weights


def test_another_number_of_ranks_is_said(tmp_path: Path) -> None:
    """Where other ranks have read the data, there is no place to go on from: that is said."""
    broken_off(tmp_path)
    named = shutil.move(tmp_path / "o" / "checkpoint-4", tmp_path / "elsewhere")
    record = read_record(named, 0)
    assert isinstance(record, Record)
    replace(record, likeness={**record.likeness, "world size": 2}).write(named, 0)
    run = trainer(tmp_path / "p", resume=str(tmp_path / "w"), max_steps=5)
    seen = Recorder(run)
    run.train(resume_from_checkpoint=str(named))
    assert ["2 ranks then, 1 now" in event.message for event in seen.of("inexact")] == [True]


def test_the_same_start_is_told_nothing(tmp_path: Path) -> None:
    """Where nothing differs nothing is said."""
    broken_off(tmp_path, train_dataset=rows(0))
    assert not [
        text for text in said(tmp_path, train_dataset=rows(0)) if "holds" in text or "data aren't" in text
    ]


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    """An optimizer that can't use the state is refused before the first step, not by a KeyError in it."""
    broken_off(tmp_path)
    with pytest.raises(errors.OtherRunError, match="AdamW, and this run trains with SGD"):
        trainer(tmp_path / "o", resume=str(tmp_path / "v"), optim="sgd").train()


def test_another_optimizer_than_a_stock_checkpoints_is_refused(tmp_path: Path) -> None:
    """A checkpoint that doesn't say what it was made with shows it by the groups of its optimizer."""
    trainer(tmp_path / "stock", max_steps=2).train()
    (tmp_path / "stock" / "checkpoint-2").rename(tmp_path / "elsewhere")
    other = trainer(tmp_path / "o", resume=str(tmp_path / "v"), optim="sgd")
    with pytest.raises(errors.OtherRunError, match=r"an optimizer without .*momentum.* in its groups"):
        other.train(resume_from_checkpoint=str(tmp_path / "elsewhere"))


def thawed(*names: str) -> Any:
    """A model of which only the parameters with one of these in their names are trained."""
    made = model()
    for name, parameter in made.named_parameters():
        parameter.requires_grad = any(one in name for one in names)
    return made


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (["k_proj"], r"q_proj\.weight only then; model\.layers\.0\.self_attn\.k_proj\.weight only now"),
        (["q_proj", "k_proj"], "parameter group that doesn't match the size"),
    ],
)
def test_other_trained_parameters_are_refused(tmp_path: Path, now: list[str], words: str) -> None:
    """The state goes to parameters by their places alone, so where others are trained no step is, whatever fits."""
    broken_off(tmp_path, model=thawed("q_proj"))
    with pytest.raises(errors.OtherRunError, match=f"state is that of other parameters.*{words}"):
        trainer(tmp_path / "o", resume=str(tmp_path / "v"), model=thawed(*now)).train()


def test_a_fold_is_never_handed_the_weights_of_another(tmp_path: Path) -> None:
    """A second fold on the vault of the first, whose run is over, is refused and says what to do."""
    trainer(tmp_path / "0", resume=str(tmp_path / "v"), train_dataset=rows(0)).train()
    again = trainer(tmp_path / "1", resume=str(tmp_path / "v"), train_dataset=rows(0))
    assert again.train().global_step == 8
    other = trainer(tmp_path / "2", resume=str(tmp_path / "v"), train_dataset=rows(1))
    with pytest.raises(errors.OtherRunError, match="Each run needs a vault of its own"):
        other.train()
    fork = Settings(vault=str(tmp_path / "w"), fork=str(tmp_path / "v"))
    onwards = trainer(tmp_path / "3", resume=fork, train_dataset=rows(1), max_steps=10)
    assert onwards.train().global_step == 10, "as a fork it may go on"


def by_epochs(tmp_path: Path, start: str, data: Any, epochs: int = 1, **more: Any) -> Any:
    """A run that is bounded by epochs, on the vault ``v`` where no other one is named."""
    given = {"resume": str(tmp_path / "v"), "max_steps": -1, "num_train_epochs": epochs, **more}
    return trainer(tmp_path / start, train_dataset=data, **given)


@pytest.mark.parametrize("alone", [False, True])
def test_a_finished_run_is_trained_no_further_by_data_that_have_grown(alone: bool, tmp_path: Path) -> None:
    """The same command on more rows is refused, and names the ways out; the vault stays as it was."""
    by_epochs(tmp_path, "0", rows(0)).train()
    before = state_of(tmp_path / "v")
    assert before.finished == 10
    vault = VaultLayerCallback(tmp_path / "v")
    how: dict[str, Any] = {"resume": None, "callbacks": [vault]} if alone else {}
    again = by_epochs(tmp_path, "1", rows(0, 24), **how)
    named = r"come to 12 steps, and not 10 .*a vault of its own.*more num_train_epochs, or begin a fork"
    if alone:
        with pytest.raises(errors.OtherRunError, match=named):
            again.train(resume_from_checkpoint=vault.pull())
        vault.close()
    else:
        with pytest.raises(errors.OtherRunError, match=named):
            again.train()
    after = state_of(tmp_path / "v")
    assert (after.commits, after.finished) == (before.commits, before.finished)


def test_a_run_that_was_stopped_early_is_trained_no_further_by_data_that_have_grown(tmp_path: Path) -> None:
    """Where the run was over ahead of its steps, more rows don't go on with it either."""

    losses = {step: float(step) for step in range(2, 14, 2)}
    first = by_epochs(tmp_path, "0", rows(0), **judged_by(losses, EarlyStoppingCallback(1)))
    assert first.train().global_step == 4
    with pytest.raises(errors.OtherRunError, match="come to 12 steps, and not 10"):
        by_epochs(tmp_path, "1", rows(0, 24), **judged_by(losses, EarlyStoppingCallback(1))).train()


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ({"epochs": 2}, 24),
        ({"max_steps": 11}, 11),
        ({"resume": "@10"}, 12),
        ({"resume": "fork"}, 12),
    ],
)
def test_a_finished_run_goes_on_with_other_data_where_that_is_asked_for(
    more: dict[str, Any], end: int, tmp_path: Path
) -> None:
    """More epochs, a number of steps, a step that is named or a fork: the new rows are trained on, and that is said."""
    by_epochs(tmp_path, "0", rows(0)).train()
    named: dict[str, Any] = {
        "@10": f"{tmp_path / 'v'}@10",
        "fork": Settings(vault=str(tmp_path / "w"), fork=str(tmp_path / "v")),
    }
    given = {**more, **({"resume": named[more["resume"]]} if "resume" in more else {})}
    again = by_epochs(tmp_path, "1", rows(0, 24), **given)
    record = Recorder(again)
    assert again.train().global_step == end
    assert any("training data aren't those" in event.message for event in record.of("notice"))


def test_a_finished_run_whose_steps_are_more_on_the_same_data_goes_on(tmp_path: Path) -> None:
    """What the data say of another run they don't say where they are the same: nothing is refused."""
    trainer(tmp_path / "0", resume=str(tmp_path / "v"), train_dataset=rows(0)).train()
    assert by_epochs(tmp_path, "1", rows(0)).train().global_step == 10, "8 steps were 1 epoch, rounded up"


def test_other_data_on_a_run_that_goes_on_are_said(tmp_path: Path) -> None:
    """A fixed or grown file is used from here on, and it is said."""
    broken_off(tmp_path, train_dataset=rows(0))
    words = said(tmp_path, train_dataset=rows(1))
    assert any("was trained on: this start's hold from here on (if" in text for text in words)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "other": 2}', b"\xff"]
)
def test_a_file_that_says_nothing(tmp_path: Path, content: bytes) -> None:
    """A checkpoint that doesn't say what it was made with is gone on from."""
    (tmp_path / FILE).write_bytes(content)
    assert read_asked(tmp_path) is None


def test_what_only_one_side_knows_is_no_difference() -> None:
    """An argument that another version of transformers doesn't have is passed over."""
    assert check_asked(Asked({"seed": 1}), Asked({"max_grad_norm": 1.0}, "AdamW", "x"), {}, over=True) == []


@pytest.mark.parametrize("over", [True, False])
def test_data_that_differ_in_part_are_said(over: bool) -> None:
    """What is drawn anew at each start doesn't make it another run, also where the run is over."""
    words = check_asked(Asked(data="rows=1 negatives=2"), Asked(data="rows=1 negatives=3"), {}, over=over)
    assert ["training data aren't those" in text for text in words] == [True]


def test_no_secret_is_kept(tmp_path: Path) -> None:
    """Only arguments that shape a run are written, by name: no token, path or address."""
    made = trainer(
        tmp_path / "o", resume=str(tmp_path / "v"), max_steps=2, model=model(), hub_token="hf_secret"
    )
    made.train()
    assert "hf_secret" not in (tmp_path / "o" / "checkpoint-2" / FILE).read_text()
