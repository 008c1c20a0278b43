"""A checkpoint that can't be loaded never becomes the newest complete one: it is tried behind its save, and said."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.optimization import get_constant_schedule

from tests.kit.inside import queue_of
from tests.trainer.conftest import Reference
from tests.trainer.kit import (
    STEPS,
    Boom,
    Do,
    FailAt,
    Patient,
    Recorder,
    model,
    state_of,
    steps_of,
    trainer,
    wait_for,
    weights,
)
from tests.trainer.test_adapters import adapted
from tests.trainer.test_snapshots import Gate
from vaultlayer_hf import Settings, Trainer
from vaultlayer_hf.trainer.loadable import kind_of

Damage = Callable[[bytes], bytes]


def spoiling(out: Path, name: str, damage: Damage, at: int = 4) -> Do:
    """A callback that writes a file of one checkpoint anew, as a script's own save may."""

    def spoil(state: Any) -> None:
        file = out / f"checkpoint-{state.global_step}" / name
        if state.global_step == at:
            file.write_bytes(damage(file.read_bytes()))

    return Do(on_save=spoil)


def cut(data: bytes) -> bytes:
    """A file that a save hasn't written to its end."""
    return data[: len(data) // 2]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_a_torn_file_costs_its_checkpoint(name: str, tmp_path: Path) -> None:
    """It isn't committed, one warning says which file and why, and the checkpoints around it are in the vault."""
    vault, out = tmp_path / "vault", tmp_path / "a"
    run = trainer(out, resume=vault, callbacks=[spoiling(out, name, cut), Patient4(vault)], max_steps=6)
    seen = Recorder(run)
    run.train()
    assert steps_of(vault) == [2, 6]
    (abandoned,) = seen.of("abandon")
    assert abandoned.fields["step"] == 4
    assert f"{name} can't be loaded" in abandoned.fields["reason"]


class SavesAverage(Trainer):
    """Saves an average of the weights in their place."""

    def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
        super()._save(output_dir, {name: one * 0.9 for name, one in self.model.state_dict().items()})


class SavesMerged(Trainer):
    """Saves an adapter merged into its base."""

    def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
        copy.deepcopy(self.model).merge_and_unload().save_pretrained(output_dir)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("cls", "make", "why"), [(SavesAverage, model, "other weights"), (SavesMerged, adapted, "an adapter")]
)
def test_other_weights_than_those_that_are_trained(cls: Any, make: Any, why: str, tmp_path: Path) -> None:
    """Of a save that a resume couldn't go on from that is said at once, and not at the next start."""
    vault = tmp_path / "vault"
    run = trainer(tmp_path / "a", cls=cls, model=make(), resume=vault, max_steps=2)
    seen = Recorder(run)
    run.train()
    assert steps_of(vault) == []
    (abandoned,) = seen.of("abandon")
    assert why in abandoned.fields["reason"]
    assert "to a folder of its own" in abandoned.fields["reason"]


class Patient4(Patient):
    """Waits for every checkpoint but that of step 4."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step != 4:
            super().on_step_begin(args, state, control, **kwargs)


class Projector:
    """An object of a script's own."""


class Projecting(torch.optim.AdamW):
    """Keeps such an object in its state from a step on; ``torch.load(weights_only=True)`` refuses it."""

    since = 1

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for state in self.state.values():
            if state["step"] >= self.since:
                state.setdefault("projector", Projector())


def projecting(out: Path, vault: Path, cls: Any = Trainer, since: int = 1) -> Any:
    """A training with such an optimizer."""
    own = model()
    optimizer = Projecting(own.parameters(), lr=1e-2)
    optimizer.since = since

    class Given(cls):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, optimizers=(optimizer, get_constant_schedule(optimizer)), **kwargs)

    return trainer(out, cls=Given, model=own, resume=vault, max_steps=6)


@pytest.mark.parametrize(("since", "committed"), [(1, []), (3, [2])])
def test_an_optimizer_state_that_stock_refuses_is_said_at_the_save(
    since: int, committed: list[int], tmp_path: Path
) -> None:
    """Its class is named with the fix at the first save that holds it, and no such checkpoint is committed."""
    run = projecting(tmp_path / "a", tmp_path / "vault", since=since)
    run.add_callback(
        Do(on_step_begin=lambda state: Patient4(tmp_path / "vault").on_step_begin(run.args, state, None))
        if committed
        else Do()
    )
    seen = Recorder(run)
    run.train()
    assert steps_of(tmp_path / "vault") == committed
    assert state_of(tmp_path / "vault").finished is None
    assert "doesn't hold the end of this run" in seen.of("trouble")[-1].message
    # On a slow machine one may be superseded.
    reasons = [event.fields["reason"] for event in seen.of("abandon")]
    reason = next(one for one in reasons if "optimizer.pt can't be loaded" in one)
    assert "Projector" in reason
    assert "add_safe_globals" in reason


def test_a_trainer_that_loads_in_its_own_way_is_believed(tmp_path: Path) -> None:
    """Where a script's class loads its optimizer itself, what stock would refuse is committed."""

    class Loading(Trainer):
        def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
            super()._load_optimizer_and_scheduler(checkpoint)

    vault = tmp_path / "vault"
    projecting(tmp_path / "a", vault, cls=Loading).train()
    assert steps_of(vault)[-1] == 6


def test_a_snapshot_that_cannot_be_loaded_is_not_adopted(tmp_path: Path, reference: Reference) -> None:
    """What a death left on the disk untried is tried by the next start, which says why it goes on from an older one."""
    vault, out = tmp_path / "vault", tmp_path / "a"
    gate = Gate(vault, "checkpoint-4")
    torn = spoiling(out, "optimizer.pt", cut, at=6)
    run = trainer(out, resume=Settings(vault=str(vault), flush_timeout=0.1), callbacks=[torn, FailAt(7)])

    def look(state: Any) -> None:
        if state.global_step == 4:
            assert gate.reached.wait(30)
        elif state.global_step == 6:  # it waits behind the one that hangs until the training is over
            queue = queue_of(run)
            threading.Thread(target=lambda: (wait_for(lambda: queue.stopping), gate.opened.set())).start()

    run.add_callback(Do(on_step_begin=look))
    with pytest.raises(Boom):
        gate.guard(run).train()
    again = trainer(out, resume=vault)
    seen = Recorder(again)
    again.train()
    passed = [event.message for event in seen.of("walk-back")]
    assert any("isn't adopted: optimizer.pt can't be loaded" in message for message in passed)
    assert (again.state.global_step, weights(again.model)) == (STEPS, reference.weights)


def test_what_a_script_keeps_there_itself_is_its_own_business() -> None:
    """Files that a resume does without are never tried."""
    assert [kind_of(path) for path in ("stats.pkl", "notes.json", "extra.pt", "training_args.bin")] == [
        None
    ] * 4
    assert kind_of("other/adapter_model.safetensors") == "adapter"
    assert kind_of("model.safetensors.index.json") == "json"
