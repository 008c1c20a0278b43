"""A loop that asks for something else than its checkpoint was made with is told so, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR
from torch.utils.data import DataLoader, TensorDataset

from tests.kit.inside import listen, session_of
from vaultlayer_hf import Checkpointer, Settings, errors
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.state.asked import FILE, trained_names
from vaultlayer_hf.state.optimizer_errors import check_optimizers
from vaultlayer_hf.state.own_numbers import put_numbers, take_numbers


def rows(start: float, size: int = 8) -> TensorDataset:
    """Samples that follow from a number: a fold."""
    return TensorDataset(torch.arange(size * 4, dtype=torch.float32).reshape(size, 4) / 100 + start)


def play(
    tmp_path: Path,
    steps: int = 2,
    *,
    optimizer: Any = AdamW,
    scheduler: Any = lambda optimizer: CosineAnnealingLR(optimizer, T_max=10),
    data: float = 0.0,
    named: bool = True,
    seed: int = 1,
    finish: bool = False,
    model: Any = None,
    vault: Any = None,
    **options: Any,
) -> tuple[list[str], Any]:
    """Go on with a loop up to a step; return what was said, and the optimizer."""
    torch.manual_seed(seed)
    model = model if model is not None else torch.nn.Linear(4, 4)
    made = optimizer(model.parameters(), **{"lr": 0.1, **options})
    loader: Any = DataLoader(rows(data), batch_size=2)
    ckpt = Checkpointer(
        vault or tmp_path / "v",
        model=model,
        optimizer=made,
        scheduler=scheduler(made),
        dataloader=loader if named else None,
        output_dir=tmp_path / "o",
        save_every="none",
    )
    said: list[Event] = []
    listen(ckpt, said.append)
    try:
        ckpt.resume()
        for _ in ckpt.steps(loader, epochs=4, total=steps):
            made.step()
            ckpt.step()
        ckpt.save()
        if finish:
            ckpt.finish()
    finally:
        ckpt.close()
    return [event.message for event in said if event.kind == "notice"], made


@pytest.mark.parametrize(
    ("name", "then", "now", "holds"),
    [
        ("lr", {"lr": 0.1}, {"lr": 0.5}, "the checkpoint's holds"),
        ("weight_decay", {"weight_decay": 0.0}, {"weight_decay": 0.25}, "the checkpoint's holds"),
        ("betas", {"betas": (0.9, 0.99)}, {"betas": (0.5, 0.99)}, "the checkpoint's holds"),
        ("T_max", {}, {"scheduler": lambda one: CosineAnnealingLR(one, T_max=5)}, "the checkpoint's holds"),
        ("scheduler", {}, {"scheduler": lambda one: StepLR(one, 5)}, "this start's holds"),
        ("seed", {"seed": 1}, {"seed": 2}, "go on from the checkpoint's state"),
    ],
)
def test_another_argument_is_said(tmp_path: Path, name: str, then: Any, now: Any, holds: str) -> None:
    """Each number that shapes a loop is named with both values, and with which of the two holds."""
    play(tmp_path, **then)
    words = [text for text in play(tmp_path, 4, **now)[0] if text.startswith(f"{name}: ")]
    assert len(words) == 1
    assert holds in words[0]
    assert all(str(value) in words[0] for value in now.values() if not callable(value))


def test_what_a_checkpoint_was_made_with_is_what_held(tmp_path: Path) -> None:
    """A rate that was asked for and didn't hold is said at each start that asks for it, and at no other one."""
    play(tmp_path)
    for steps in (4, 6):
        words = [text for text in play(tmp_path, steps, lr=0.5)[0] if text.startswith("lr: ")]
        assert [text.startswith("lr: 0.1 in the checkpoint, 0.5 asked for") for text in words] == [True]
    assert not [text for text in play(tmp_path, 8)[0] if text.startswith("lr: ")]


def test_the_checkpoints_numbers_hold(tmp_path: Path) -> None:
    """What is said of the optimizer's numbers is what happens."""
    play(tmp_path, weight_decay=0.0)
    _, optimizer = play(tmp_path, 4, weight_decay=0.25)
    assert optimizer.param_groups[0]["weight_decay"] == 0.0


def test_a_loop_that_trains_on_after_its_end_is_told_which_number_holds(tmp_path: Path) -> None:
    """A loop's end isn't known ahead: it is said which number holds if it trains on."""
    play(tmp_path, finish=True)
    said, _ = play(tmp_path, 4, lr=0.5)
    (words,) = [text for text in said if text.startswith("lr: ")]
    assert "if this loop takes more steps, the checkpoint's holds" in words


def test_the_same_loop_is_told_nothing(tmp_path: Path) -> None:
    """Where nothing differs nothing is said."""
    play(tmp_path)
    assert not [text for text in play(tmp_path, 4)[0] if "holds" in text or "data aren't" in text]


def test_a_cell_that_is_run_again_is_told_nothing(tmp_path: Path) -> None:
    """What the loop itself has made of its learning rate is no other argument."""
    model = torch.nn.Linear(4, 4)
    optimizer = SGD(model.parameters(), lr=0.1)
    ckpt = Checkpointer(tmp_path / "v", model=model, optimizer=optimizer, output_dir=tmp_path / "o")
    said: list[Event] = []
    listen(ckpt, said.append)
    for _ in range(2):
        ckpt.resume()
        optimizer.param_groups[0]["lr"] = 0.01
        ckpt.step()
        ckpt.save()
        ckpt.close()
    assert not [event for event in said if "asked for" in event.message]


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    """An optimizer that can't use the state is refused before the first step, not by a KeyError in it."""
    play(tmp_path)
    with pytest.raises(errors.OtherRunError, match="AdamW, and this run trains with SGD"):
        play(tmp_path, 4, optimizer=SGD, momentum=0.9)


def test_a_schedule_that_cannot_take_the_place_is_named(tmp_path: Path) -> None:
    """Instead of torch's KeyError, the error names both schedules."""
    play(tmp_path)
    with pytest.raises(errors.OtherRunError, match=r"the schedule CosineAnnealingLR .* begins with LambdaLR"):
        play(tmp_path, 4, scheduler=lambda one: LambdaLR(one, lambda step: 1.0))


def _cyclic(optimizer: Any, momentum: bool) -> Any:
    return CyclicLR(optimizer, 0.01, 0.1, cycle_momentum=momentum)


def _in_turn(optimizer: Any, second: Any) -> Any:
    return SequentialLR(optimizer, [ConstantLR(optimizer), second(optimizer)], milestones=[8])


@pytest.mark.parametrize(
    ("then", "now", "lacking"),
    [
        (lambda one: StepLR(one, 2), lambda one: OneCycleLR(one, 0.1, 10), "base_momentum, max_lr, max_m"),
        (lambda one: StepLR(one, 2), lambda one: SWALR(one, 0.05), "swa_lr"),
        (lambda one: _cyclic(one, False), lambda one: _cyclic(one, True), "base_momentum, max_momentum"),
        (
            lambda one: _in_turn(one, lambda inner: StepLR(inner, 2)),
            lambda one: _in_turn(one, lambda inner: OneCycleLR(inner, 0.1, 10)),
            "base_momentum, max_lr, max_m",
        ),
    ],
    ids=["OneCycleLR", "SWALR", "CyclicLR", "behind another"],
)
def test_a_schedule_that_lacks_its_numbers_is_named(
    tmp_path: Path, then: Any, now: Any, lacking: str
) -> None:
    """What it keeps in the optimizer's groups isn't in the checkpoint: it would be torch's KeyError, and maybe late."""
    play(tmp_path, scheduler=then)
    words = rf"the schedule \w+ of .* begins with \w+, which can't take it .*groups there have no {lacking}"
    with pytest.raises(errors.OtherRunError, match=words):
        play(tmp_path, 4, scheduler=now)
    play(tmp_path / "same", scheduler=now)
    play(tmp_path / "same", 4, scheduler=now)


def test_other_trained_parameters_are_refused(tmp_path: Path) -> None:
    """The state goes to parameters by their places alone: where others of the same shapes are trained, no step is."""

    def training(places: slice) -> Any:
        return lambda parameters, **options: AdamW(list(parameters)[places], **options)

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    play(tmp_path, model=model, optimizer=training(slice(0, 2)))
    with pytest.raises(
        errors.OtherRunError, match=r"0\.weight, 0\.bias only then; 1\.weight, 1\.bias only now"
    ):
        play(tmp_path, 4, model=model, optimizer=training(slice(2, 4)))
    swapped = lambda parameters, **options: AdamW(list(parameters)[1::-1], **options)  # noqa: E731
    with pytest.raises(errors.OtherRunError, match="the same ones in another order"):
        play(tmp_path, 4, model=model, optimizer=swapped)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, torch.compile], ids=["several devices", "compiled"])
def test_a_wrapped_model_trains_the_same_parameters(wrap: Any) -> None:
    """What DDP, DataParallel or torch.compile put around a model is no part of its parameters' names."""
    model = torch.nn.Linear(4, 4)
    optimizer = AdamW(model.parameters())
    assert (
        trained_names([wrap(model)], [optimizer]) == trained_names([model], [optimizer]) == ["weight", "bias"]
    )
    assert trained_names([torch.nn.Linear(4, 4)], [optimizer]) == [], (
        "an engine's own parameters: nothing is said"
    )


def test_another_optimizers_state_shows_by_itself() -> None:
    """Also where a checkpoint doesn't say what it was made with, its groups show whose they are."""
    model = torch.nn.Linear(4, 4)
    saved = AdamW(model.parameters()).state_dict()
    same, other = AdamW(model.parameters()), SGD(model.parameters(), momentum=0.9)
    for optimizer in (same, other):
        optimizer.load_state_dict(saved)
    check_optimizers([same])
    with pytest.raises(errors.OtherRunError, match="without dampening, momentum in its groups"):
        check_optimizers([other])


@pytest.mark.parametrize("named", [True, False])
def test_a_fold_is_never_handed_the_weights_of_another(tmp_path: Path, named: bool) -> None:
    """A second fold on a finished vault is refused, whether its data are named at the start or with ``steps()``."""
    play(tmp_path, finish=True, named=named)
    play(tmp_path, finish=True, named=named)
    with pytest.raises(errors.OtherRunError, match="Each run needs a vault of its own"):
        play(tmp_path, data=5.0, named=named)


@pytest.mark.parametrize("named", [True, False])
def test_a_fold_is_told_how_a_loop_goes_on_with_other_data(tmp_path: Path, named: bool) -> None:
    """The error names what a loop can do, and no Trainer; and the loop that does it trains on."""
    play(tmp_path, finish=True, named=named)
    with pytest.raises(errors.OtherRunError) as refused:
        play(tmp_path, 4, data=5.0, named=named)
    uri = f"{(tmp_path / 'v').as_uri()}@2"
    assert f"name the step that it ended at, {uri}, or begin a fork" in str(refused.value)
    assert "Trainer" not in str(refused.value)
    said, _ = play(tmp_path, 4, data=5.0, named=named, vault=uri)
    assert sum("training data aren't those" in text for text in said) == 1


@pytest.mark.parametrize("named", [True, False])
def test_other_data_on_a_run_that_goes_on_are_said(tmp_path: Path, named: bool) -> None:
    """A fixed or grown file is used from here on, and it is said."""
    play(tmp_path, named=named)
    said, _ = play(tmp_path, 4, data=5.0, named=named)
    assert sum("training data aren't those" in text for text in said) == 1


def script(
    tmp_path: Path,
    optimizer: Any = AdamW,
    vault: Any = None,
    scheduler: Any = None,
    data: float = 0.0,
    end: bool = False,
    **options: Any,
) -> list[str]:
    """A script with save_state and load_state of its own; return what was said."""
    torch.manual_seed(1)
    accelerator = Accelerator(cpu=True, project_dir=tmp_path / "p")
    model = torch.nn.Linear(4, 4)
    made = optimizer(model.parameters(), **{"lr": 0.1, **options})
    model, made, _ = accelerator.prepare(model, made, DataLoader(rows(data), batch_size=2))
    if scheduler is not None:
        accelerator.prepare(scheduler(made.optimizer))
    ckpt = Checkpointer(vault or tmp_path / "v", output_dir=tmp_path / "p")
    said: list[Event] = []
    listen(ckpt, said.append)
    try:
        if ckpt.attach(accelerator) is not None:
            accelerator.load_state()
        made.step()
        accelerator.save_state(str(tmp_path / "p" / "step_1"))
        if end:
            accelerator.end_training()
    finally:
        ckpt.close()
    return [event.message for event in said]


def test_an_attached_script_is_compared(tmp_path: Path) -> None:
    """A script with one line of ours is told, and refused, as any other."""
    script(tmp_path)
    words = [text for text in script(tmp_path, lr=0.5) if text.startswith("lr: ")]
    assert len(words) == 1
    assert "the checkpoint's holds" in words[0]
    with pytest.raises(errors.OtherRunError, match="AdamW, and this run trains with SGD"):
        script(tmp_path, SGD, momentum=0.9)
    script(tmp_path / "b", scheduler=lambda one: StepLR(one, 2))
    with pytest.raises(errors.OtherRunError, match="begins with OneCycleLR, which can't take it"):
        script(tmp_path / "b", scheduler=lambda one: OneCycleLR(one, 0.1, 10))


def test_an_attached_script_may_go_on_with_other_data(tmp_path: Path) -> None:
    """Where its run is over, it goes on from its end with other data where it names that step."""
    script(tmp_path, end=True)
    with pytest.raises(errors.OtherRunError, match=r"name the step that it ended at, \S+/v@1, or"):
        script(tmp_path, data=5.0)
    said = script(tmp_path, data=5.0, vault=f"{tmp_path / 'v'}@1")
    assert sum("training data aren't those" in text for text in said) == 1


def test_an_adapter_in_a_loop(tmp_path: Path) -> None:
    """A loop saves the base model as well: another one than the checkpoint's gives way to it, and that is said."""
    peft = pytest.importorskip("peft")

    def adapted(seed: int, alpha: int) -> Any:
        torch.manual_seed(seed)
        inner = torch.nn.Sequential(torch.nn.Linear(4, 4))
        return peft.get_peft_model(inner, peft.LoraConfig(r=2, lora_alpha=alpha, target_modules=["0"]))

    play(tmp_path, model=adapted(1, 8))
    base = adapted(1, 8).base_model.model[0].base_layer.weight
    other = adapted(2, 16)
    said, _ = play(tmp_path, 4, model=other)
    assert any(text.startswith("lora_alpha: 8 in the checkpoint's adapter, 16 asked for") for text in said)
    assert any("the checkpoint holds its weights, too, and these hold" in text for text in said)
    assert torch.equal(other.base_model.model[0].base_layer.weight, base)


def test_what_a_loop_was_asked_for_lies_in_its_folder(tmp_path: Path) -> None:
    """One small file in each folder says it, beside the files of before."""
    play(tmp_path)
    assert '"optimizer": "AdamW"' in (tmp_path / "o" / "checkpoint-2" / FILE).read_text()


def fork(tmp_path: Path, steps: int = 6, **options: Any) -> tuple[list[str], Any]:
    """Fork the loop at step 2, on a vault and in a folder of its own."""
    new = tmp_path / "new"
    settings = Settings(vault=str(new / "v"), fork=f"{tmp_path / 'v'}@2")
    return play(new, steps, vault=settings, **options)


def test_a_fork_of_a_loop_trains_with_its_own_numbers(tmp_path: Path) -> None:
    """Learning rate, weight decay and schedule are this script's, at the checkpoint's place, and so it is said."""
    play(tmp_path)
    half = {"lr": 0.5, "weight_decay": 0.25, "scheduler": lambda one: CosineAnnealingLR(one, T_max=5)}
    said, optimizer = fork(tmp_path, 2, **half)
    assert optimizer.param_groups[0]["weight_decay"] == 0.25
    assert optimizer.param_groups[0]["lr"] == 0.5, "the schedule wasn't stepped in this loop"
    assert any(text.startswith("a fork: this script's learning rate") for text in said)
    assert any(
        text.startswith("lr: 0.1 in the checkpoint, 0.5 asked for: this start's holds") for text in said
    )
    words, optimizer = fork(tmp_path, 4, **half)
    assert not [text for text in words if "a fork" in text], "it goes on by itself"
    assert optimizer.param_groups[0]["weight_decay"] == 0.25


def test_what_a_schedule_comes_to_in_a_fork() -> None:
    """A schedule that can be computed for another rate is; one that follows from what came before is left as it was."""
    for make in (lambda one: LambdaLR(one, lambda step: 1 / (step + 1)), lambda one: StepLR(one, 2)):
        then, now = (SGD([torch.nn.Parameter(torch.ones(1))], lr=lr) for lr in (0.1, 0.4))
        old, new = make(then), make(now)
        for _ in range(3):
            then.step()
            old.step()
        own = take_numbers([now], [new])
        now.load_state_dict(then.state_dict())
        new.load_state_dict(old.state_dict())
        assert "learning rate, weight decay, betas and schedule hold" in put_numbers(own, [now], [new])
        assert now.param_groups[0]["lr"] == pytest.approx(4 * then.param_groups[0]["lr"])
        now.step()
        then.step()
        old.step()
        new.step()
        assert now.param_groups[0]["lr"] == pytest.approx(4 * then.param_groups[0]["lr"])
    then, now = (SGD([torch.nn.Parameter(torch.ones(1))], lr=lr) for lr in (0.1, 0.4))
    old, new = ReduceLROnPlateau(then), ReduceLROnPlateau(now)
    own = take_numbers([now], [new])
    now.load_state_dict(then.state_dict())
    new.load_state_dict(old.state_dict())
    assert "the learning rate is the checkpoint's, as that of ReduceLROnPlateau" in put_numbers(
        own, [now], [new]
    )
    assert now.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda one, lr: OneCycleLR(one, max_lr=lr, total_steps=20 if lr == 0.1 else 30),
        lambda one, lr: CosineAnnealingWarmRestarts(one, T_0=3, T_mult=2, eta_min=lr / 10),
    ],
)
def test_a_schedule_of_a_fork_goes_on_as_if_it_had_been_the_scripts_from_the_start(make: Any) -> None:
    """Rates, and betas where the schedule moves them, are those that the script's own schedule has at that place."""

    def stepped(lr: float, steps: int) -> Any:
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=lr)
        schedule = make(optimizer, lr)
        for _ in range(steps):
            optimizer.step()
            schedule.step()
        return optimizer, schedule

    (then, old), (now, new), (whole, other) = stepped(0.1, 7), stepped(0.4, 0), stepped(0.4, 7)
    own = take_numbers([now], [new])
    now.load_state_dict(then.state_dict())
    new.load_state_dict(old.state_dict())
    assert "learning rate, weight decay, betas and schedule hold" in put_numbers(own, [now], [new])
    for _ in range(12):
        ours, theirs = now.param_groups[0], whole.param_groups[0]
        assert (ours["lr"], ours["betas"]) == (pytest.approx(theirs["lr"]), pytest.approx(theirs["betas"]))
        for one in (now, new, whole, other):
            one.step()


def test_a_schedule_that_is_too_short_for_a_fork_is_refused() -> None:
    """torch's error of a step too many comes ahead of the training, in words."""
    now, then = (torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]) for _ in range(2))
    new, old = OneCycleLR(now, max_lr=0.1, total_steps=5), OneCycleLR(then, max_lr=0.1, total_steps=20)
    for _ in range(7):
        then.step()
        old.step()
    own = take_numbers([now], [new])
    now.load_state_dict(then.state_dict())
    new.load_state_dict(old.state_dict())
    with pytest.raises(errors.ResumeError, match="Give it more steps"):
        put_numbers(own, [now], [new])


def test_an_attached_script_forks(tmp_path: Path) -> None:
    """A script with save_state of its own begins from the other vault, with its own learning rate behind the load."""
    script(tmp_path)
    new = tmp_path / "new"
    said = script(new, lr=0.5, vault=Settings(vault=str(new / "v"), fork=str(tmp_path / "v")))
    assert any("begins as a fork of step 1" in text for text in said)
    assert any(text.startswith("a fork: this script's learning rate") for text in said)


@pytest.mark.parametrize("stop", [5, 7])
def test_data_that_each_pass_makes_anew_are_no_other_run(stop: int, tmp_path: Path) -> None:
    """Nothing is said of a loop whose passes have data of their own, wherever it is broken off behind its first."""

    def run(ends: int) -> list[str]:
        model = torch.nn.Linear(2, 1)
        ckpt = Checkpointer(tmp_path / "v", model=model, save_every=1, output_dir=tmp_path / "o")
        said: list[str] = []
        listen(ckpt, lambda event: said.append(event.message))
        ckpt.resume()
        for epoch in ckpt.epochs(range(4)):
            rows = torch.randn(6, 2, generator=torch.Generator().manual_seed(epoch))
            loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), batch_size=2)
            for _ in ckpt.batches(loader):
                ckpt.step()
                if session_of(ckpt).step == ends:
                    ckpt.close()
                    return said
        ckpt.finish()
        return said

    every = [*run(stop), *run(stop + 3), *run(0)]
    assert not [message for message in every if "training data aren't those" in message]


def test_a_seed_that_torch_drew_is_nobodys_wish(tmp_path: Path) -> None:
    """A script that sets no seed gets another one from torch at each start, of which nothing need be said."""
    assert play(tmp_path, 2, seed=0x9055E2DD445D384E)[0] == []
    assert play(tmp_path, 3, seed=0x53DB4651ACAE849D)[0] == []
