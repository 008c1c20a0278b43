"""What is being uploaded is safe from the Trainer's rotation, and what was rewritten is never committed as whole."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kit.inside import use_store
from tests.trainer.kit import (
    Boom,
    Do,
    FailAt,
    Patient,
    Recorder,
    big_model,
    state_of,
    steps_of,
    trainer,
    wait_for,
    weights,
)
from vaultlayer_hf import open_vault
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation


class Gate:
    """Holds the uploads of one checkpoint until it is opened, and tells when one is under way."""

    def __init__(self, vault: Path, name: str, path: str = "") -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

        def plan(operation: Operation) -> Fault | None:
            if operation.name == "upload" and f"/{name}/" in operation.key and operation.key.endswith(path):
                return Fault(before=self._wait)
            return None

        self.store = FaultStore(open_store(parse_vault(str(vault))), plan)

    def _wait(self, _: Operation) -> None:
        self.reached.set()
        self.opened.wait(30)

    def guard(self, run: Any) -> Any:
        """Put the gate between a trainer and its vault."""
        return use_store(run, self.store)


def verified(vault: Path) -> list[int]:
    """Steps of the checkpoints of a vault whose every digest holds."""
    with open_vault(vault) as opened:
        return [commit.step for commit in opened.checkpoints() if opened.verify(commit).ok]


def test_rotation_during_an_upload(tmp_path: Path) -> None:
    """A checkpoint that the Trainer rotates away while it is being uploaded arrives whole, and can be gone on from."""
    vault, out = tmp_path / "vault", tmp_path / "a"
    gate = Gate(vault, "checkpoint-2")
    gone: list[bool] = []

    def let_go(state: Any) -> None:
        if state.global_step == 4:
            assert gate.reached.wait(30)
            gone.append(not (out / "checkpoint-2").exists())
            gate.opened.set()

    first = trainer(out, model=big_model(), resume=vault, save_total_limit=1, callbacks=[FailAt(5)])
    first.add_callback(Do(on_save=let_go))
    with pytest.raises(Boom):
        gate.guard(first).train()
    assert gone == [True]
    assert verified(vault) == steps_of(vault) == [2, 4]

    expected = trainer(tmp_path / "unbroken", model=big_model())
    expected.train()
    second = trainer(tmp_path / "b", model=big_model(), resume=f"{vault}@2")
    second.train()
    assert weights(second.model) == weights(expected.model)


@pytest.mark.parametrize("moment", ["before it is sealed", "while it is sent"])
def test_rewritten_in_place(moment: str, tmp_path: Path) -> None:
    """A checkpoint that a callback rewrites in place (same inode) is abandoned with the reason, never committed."""
    vault, out = tmp_path / "vault", tmp_path / "out"
    held = "checkpoint-2" if moment == "before it is sealed" else "checkpoint-4"
    gate = Gate(vault, held, "model.safetensors")

    def rewrite(state: Any) -> None:
        path = out / "checkpoint-4" / "model.safetensors"
        if state.global_step == 5:
            if moment == "while it is sent":
                assert gate.reached.wait(30)
            with open(path, "r+b") as file:
                file.seek(1000)
                file.write(b"\0" * 1000)
            gate.opened.set()
            wait_for(lambda: bool(record.of("abandon")))

    run = trainer(out, model=big_model(), resume=vault, callbacks=[Do(on_step_end=rewrite)])
    record = Recorder(run)
    gate.guard(run).train()
    abandoned = {event.fields["step"]: event.fields["reason"] for event in record.of("abandon")}
    assert "model.safetensors" in abandoned[4]
    assert "rewritten" in abandoned[4]
    assert verified(vault) == steps_of(vault)
    assert steps_of(vault)[-1] == 8
    assert 4 not in steps_of(vault)


def test_small_files_rewritten_after_the_save(tmp_path: Path) -> None:
    """Small files are copied at once: what somebody makes of trainer_state.json later isn't in the checkpoint."""
    vault, out = tmp_path / "vault", tmp_path / "out"
    state = Do(
        on_step_begin=lambda s: s.global_step == 2 and _overwrite(out / "checkpoint-2" / "trainer_state.json")
    )
    trainer(out, resume=vault, callbacks=[state, Patient(vault)]).train()
    assert verified(vault)[-3:] == [4, 6, 8]
    kept = open_store(parse_vault(str(vault)))
    assert b"overwritten" not in kept.read("data/1/checkpoint-4/trainer_state.json", limit=10**6)


def _overwrite(path: Path) -> None:
    path.write_text("overwritten")


@pytest.mark.parametrize("ours", [True, False])
def test_saving_a_step_twice(ours: bool, tmp_path: Path) -> None:
    """A step that is saved again while its first save is being uploaded harms neither, with the callback alone too."""
    import transformers

    from vaultlayer_hf import VaultLayerCallback

    vault, out = tmp_path / "vault", tmp_path / "out"
    gate = Gate(vault, "checkpoint-2", "optimizer.pt")
    callback = VaultLayerCallback(vault)
    run = (
        trainer(out, model=big_model(), resume=vault, max_steps=3, save_steps=2)
        if ours
        else trainer(
            out, cls=transformers.Trainer, model=big_model(), callbacks=[callback], max_steps=3, save_steps=2
        )
    )

    def again(state: Any) -> None:
        if state.global_step == 2:
            assert gate.reached.wait(30)
            with torch.no_grad():
                run.model.model.norm.weight.add_(1)
            run._save_checkpoint(run.model, None)
            run.control = run.callback_handler.on_save(run.args, run.state, run.control)
            gate.opened.set()
            wait_for(lambda: len(steps_of(vault)) >= 2)

    run.add_callback(Do(on_step_begin=again))
    record = Recorder(run if ours else callback)
    gate.guard(run if ours else callback)
    run.train(resume_from_checkpoint=None if ours else callback.pull())
    assert verified(vault) == steps_of(vault)
    # The folder is emptied first, so the first save stays what it was.
    assert [commit.name for commit in state_of(vault).commits] == [
        "checkpoint-2",
        "checkpoint-2.2",
        "checkpoint-3",
    ]
    assert record.of("abandon") == []


def test_a_folder_that_can_not_be_frozen(tmp_path: Path) -> None:
    """A checkpoint that a manifest can't describe is abandoned with the reason; training goes on."""
    vault, out = tmp_path / "vault", tmp_path / "out"

    def link(state: Any) -> None:
        if state.global_step == 4:
            (out / "checkpoint-4" / "elsewhere").symlink_to(tmp_path)

    run = trainer(out, resume=vault, max_steps=6)
    run.add_callback(Do(on_save=link))  # ours comes last of its own accord, and so sees it
    record = Recorder(run)
    assert run.train().global_step == 6
    assert "link to a folder" in record.of("abandon")[0].fields["reason"]
    assert 4 not in steps_of(vault)
    assert steps_of(vault)[-1] == 6
