"""What a script adds to its Trainer's vault is carried with each checkpoint, exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, Tokens, model, steps_of, trainer, weights
from vaultlayer_hf import ResumeError, SettingsError, Trainer, VaultLayerCallback


class Average(transformers.TrainerCallback):
    """An EMA of the weights, and a count of what it has seen, beside the model."""

    def __init__(self) -> None:
        self.average = model(seed=9)
        self.seen: list[int] = []
        self.fails = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            for mine, other in zip(self.average.parameters(), kwargs["model"].parameters(), strict=True):
                mine.mul_(0.9).add_(other, alpha=0.1)
        self.seen.append(state.global_step)

    def state_dict(self) -> dict[str, Any]:
        if self.fails:
            raise RuntimeError("no state")
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def averaged(out: Path, vault: Path | None, *more: Any, fails: bool = False, **options: Any) -> Any:
    """A training with such an average, which is carried."""
    average = Average()
    average.fails = fails
    run = trainer(out, resume=vault, callbacks=[average, *more], **options)
    run.vault.add("average", average.average)
    run.vault.add("seen", average, each_rank=True)
    run.vault.add("nothing", None)
    run.average = average
    return run


def test_it_comes_back_exactly(tmp_path: Path) -> None:
    """An EMA that is broken off three times ends as that of an unbroken run, which a Trainer without a vault is."""
    unbroken = averaged(tmp_path / "u", None)
    unbroken.train()
    vault = tmp_path / "vault"
    for number, step in enumerate((3, 5, 7)):
        with pytest.raises(Boom):
            averaged(tmp_path / str(number), vault, Patient(vault), FailAt(step)).train()
    again = averaged(tmp_path / "b", vault)
    again.train()
    assert weights(again.average.average) == weights(unbroken.average.average)
    assert again.average.seen == unbroken.average.seen
    assert weights(again.model) == weights(unbroken.model)


class Second(Trainer):
    """Draws rows of a second loader in its loss; it has dropout, so that what else is drawn shows."""

    loader: Any = None
    drawn: Any = None

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.drawn is None:
            self.drawn = iter(self.loader)
        batch = next(self.drawn, None)
        if batch is None:
            self.drawn = iter(self.loader)
            batch = next(self.drawn)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss + 0.1 * model(**batch).loss


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("early", [False, True], ids=["opened by the loss", "opened ahead of train()"])
def test_a_second_loader_goes_on_where_it_was(tmp_path: Path, early: bool) -> None:
    """Its place comes back, and the training draws what an unbroken one does; of one that was open, it is said."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def made(out: Path, vault: Path | None, seed: int = 1, **more: Any) -> Any:
        run = trainer(out, cls=Second, resume=vault, **more)
        torch.manual_seed(seed)
        run.loader = stateful.StatefulDataLoader(Tokens(6), batch_size=2, shuffle=True)
        run.vault.add("second", run.loader)
        run.drawn = iter(run.loader) if early else None
        return run

    unbroken, vault = made(tmp_path / "u", None), tmp_path / "vault"
    unbroken.train()
    with pytest.raises(Boom):
        made(tmp_path / "a", vault, callbacks=[Patient(vault), FailAt(5)]).train()
    again = made(tmp_path / "b", vault, seed=2)
    seen = Recorder(again)
    again.train()
    said = [
        one.message for one in seen.of("inexact") if "second: it was opened before the load" in one.message
    ]
    assert bool(said) == early
    assert (weights(again.model) == weights(unbroken.model)) != early


def without(run: Any) -> None:
    """Add nothing."""


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (without, lambda run: run.vault.add("ema", model()), "holds nothing of ema"),
        (lambda run: run.vault.add("ema", model()), without, "holds the state of ema, which nothing takes"),
    ],
    ids=["later", "no more"],
)
def test_what_is_added_on_one_side_alone_is_said(
    then: Callable[[Any], None], now: Callable[[Any], None], said: str, tmp_path: Path
) -> None:
    """The run goes on, and one line says that the numbers of this object begin anew, or are left."""
    vault = tmp_path / "vault"
    first = trainer(tmp_path / "a", resume=vault, callbacks=[Patient(vault), FailAt(3)])
    then(first)
    with pytest.raises(Boom):
        first.train()
    again = trainer(tmp_path / "b", resume=vault, max_steps=4)
    now(again)
    seen = Recorder(again)
    again.train()
    assert len([event for event in seen.of("inexact") if said in event.message]) == 1


def test_a_checkpoint_of_stock_lacks_what_is_added(tmp_path: Path) -> None:
    """Where a checkpoint was saved without a vault, that is given as the reason, and no other."""
    with pytest.raises(Boom):
        trainer(tmp_path / "out", cls=transformers.Trainer, callbacks=[FailAt(3)]).train()
    again = trainer(tmp_path / "out", resume=tmp_path / "vault", max_steps=4)
    again.vault.add("ema", model())
    seen = Recorder(again)
    again.train(resume_from_checkpoint=True)
    said = [event.message for event in seen.of("inexact") if "holds nothing of ema" in event.message]
    assert [one.rpartition(": ")[2] for one in said] == ["the checkpoint was saved without a vault"]


def test_an_object_that_cannot_be_loaded_ends_the_start(tmp_path: Path) -> None:
    """Nothing is trained on half of a state: the error names the object's file."""
    vault = tmp_path / "vault"
    first = trainer(tmp_path / "a", resume=vault, callbacks=[Patient(vault), FailAt(3)])
    first.vault.add("ema", model(hidden=16))
    with pytest.raises(Boom):
        first.train()
    again = trainer(tmp_path / "b", resume=vault)
    again.vault.add("ema", model(hidden=32))
    with pytest.raises(ResumeError, match=r"vaultlayer_added/ema\.pt of checkpoint-2 can't be loaded"):
        again.train()


def test_an_object_without_a_state_costs_the_checkpoint(tmp_path: Path) -> None:
    """Where its state_dict raises, the training goes on, and no checkpoint that lacks it is committed."""
    run = averaged(tmp_path / "a", tmp_path / "vault", fails=True, max_steps=4)
    seen = Recorder(run)
    assert run.train().global_step == 4
    assert steps_of(tmp_path / "vault") == []
    assert any("it lacks vaultlayer_added/seen.0.pt" in event.message for event in seen.of("abandon"))
    assert any("no state" in event.message for event in seen.of("trouble"))


def test_what_can_be_added(tmp_path: Path) -> None:
    """A name, and an object with a state, each once and ahead of train(): anything else is one clear error."""
    vault = VaultLayerCallback(tmp_path / "vault")
    vault.add("ema", model())
    for name, thing, said in (
        ("ema", model(), "already"),
        ("../x", model(), "letters"),
        ("list", [1], "has no state_dict"),
    ):
        with pytest.raises(SettingsError, match=said):
            vault.add(name, thing)


def test_an_attribute_of_a_scripts_own_wins(tmp_path: Path) -> None:
    """A class that has something else by this name keeps it."""

    class Own(Trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.vault = "mine"
            super().__init__(*args, **kwargs)

    assert trainer(tmp_path, cls=Own, resume=tmp_path / "vault").vault == "mine"
    assert not trainer(tmp_path).vault
