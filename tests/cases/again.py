"""Cases of a cell that is run again, and of a checkpoint that the script names."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.trainer_utils import get_last_checkpoint

from tests.cases.case import NOTHING, Bench, Verdict, case, tell
from tests.cases.training import Begun, digest, doing, go, made
from tests.trainer.kit import steps_of, wait_for
from vaultlayer_hf import Checkpointer, VaultLayerCallback


def _interrupt_once(step: int) -> Any:
    """Send SIGINT to this process at the end of a step, the first time."""
    left = [step]

    def act(state: Any) -> None:
        if left and state.global_step == left[0]:
            left.clear()
            os.kill(os.getpid(), signal.SIGINT)

    return doing(on_step_end=act)


def cell(side: str, out: str, vault: str | None, interrupted: bool = True, alone: bool = False) -> None:
    """A cell that trains 12 steps, is interrupted at 5, and is run again with the same Trainer."""
    begun = Begun()
    callbacks = [begun, *([_interrupt_once(5)] if interrupted else [])]
    pulled = VaultLayerCallback(vault) if alone and vault else None
    if pulled is not None:
        trainer = made("stock", out, None, callbacks=[pulled, *callbacks], max_steps=12)
    else:
        trainer = made(side, out, vault, callbacks=callbacks, max_steps=12)

    def run() -> None:
        if pulled is not None:
            trainer.train(resume_from_checkpoint=pulled.pull())
        elif vault is not None:
            trainer.train()
        else:
            go(trainer)

    try:
        run()
    except KeyboardInterrupt:
        run()
    tell([digest(trainer.model), begun.steps, steps_of(vault) if vault else []])


def _cell_again(bench: Bench, alone: bool) -> Verdict:
    expected = bench.play(cell, "unbroken", interrupted=False).found[0]
    done = bench.play(cell, alone=alone)
    if done.found is None:
        return Verdict(False, done.last)
    weights, begun, commits = done.found
    right = weights == expected and begun[-1] >= 5 and (not bench.ours or commits[-1] == 12)
    return Verdict(
        right, f"began at {begun}, weights equal: {weights == expected}, commits {commits or 'none'}"
    )


@case(
    "cell-again",
    "a notebook's cell is interrupted (Ctrl-C) at step 5 and run again with the same Trainer",
    "it goes on from 5, commits, and ends with the weights of an unbroken run",
)
def cell_again(bench: Bench) -> Verdict:
    return _cell_again(bench, alone=False)


@case(
    "cell-again-callback",
    "the same with the callback alone: train(resume_from_checkpoint=vault.pull())",
    "it goes on from 5, commits, and ends with the weights of an unbroken run",
)
def cell_again_callback(bench: Bench) -> Verdict:
    return _cell_again(bench, alone=True) if bench.ours else NOTHING


def loop(side: str, out: str, vault: str | None, interrupted: bool = True) -> None:
    """A loop's cell that is interrupted at step 5, and run again with the same Checkpointer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Dropout(0.3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    where = vault or f"{out}-vault"
    ckpt = Checkpointer(where, model=model, optimizer=optimizer, save_every="2 steps", output_dir=out)
    begun = []

    def run(at: int) -> None:
        begun.append(ckpt.resume())
        for step in range(begun[-1], 12):
            loss = model(torch.randn(4, 16)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step + 1 == at:
                os.kill(os.getpid(), signal.SIGINT)
            ckpt.step(loss=loss)
        ckpt.finish()

    try:
        run(5 if interrupted else 0)
    except KeyboardInterrupt:
        run(0)
    tell([digest(model), begun, steps_of(where)])


@case(
    "loop-cell-again",
    "the same of a loop: the Checkpointer's resume() is called again behind Ctrl-C",
    "it goes on from 5, commits, and ends with the weights of an unbroken run",
)
def loop_cell_again(bench: Bench) -> Verdict:
    if not bench.ours:
        return NOTHING
    expected = bench.play(loop, "unbroken", interrupted=False).found[0]
    done = bench.play(loop)
    if done.found is None:
        return Verdict(False, done.last)
    weights, begun, commits = done.found
    right = weights == expected and begun == [0, 5] and commits[-1] == 12
    return Verdict(right, f"began at {begun}, weights equal: {weights == expected}, commits {commits}")


class DiesInSave(transformers.Trainer):
    """Is killed between the model and the optimizer of checkpoint-6, once the vault holds step 4."""

    waits_for: str | None = None

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.state.global_step == 6:
            wait_for(lambda: self.waits_for is None or 4 in steps_of(self.waits_for))
            os.kill(os.getpid(), signal.SIGKILL)
        super()._save_optimizer_and_scheduler(output_dir)


def named(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """train(resume_from_checkpoint=get_last_checkpoint(output_dir)), beside resume= where there is a vault."""
    DiesInSave.waits_for = vault
    trainer = made(side, out, vault, DiesInSave if dies else transformers.Trainer)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(out) if os.path.isdir(out) else None)
    tell(digest(trainer.model))


@case(
    "last-checkpoint-torn",
    "killed inside a save; the script starts again with get_last_checkpoint, which names the torn folder",
    "it goes on from the newest whole checkpoint, with the weights of an unbroken run",
)
def last_checkpoint_torn(bench: Bench) -> Verdict:
    expected = bench.play(named, "unbroken").found
    killed = bench.play(named, dies=True)
    done = bench.play(named)
    figures = f"killed {killed.code}, then exit {done.code}, weights equal: {done.found == expected}"
    return Verdict(done.found == expected, figures if done.code == 0 else f"{figures}, {done.last}")


def true(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """train(resume_from_checkpoint=True)."""
    trainer = made(side, out, vault, die=(5, 4) if dies else None)
    trainer.train(resume_from_checkpoint=None if dies else True)
    tell(digest(trainer.model))


@case(
    "true-on-an-empty-disk",
    "train(resume_from_checkpoint=True) on an emptied disk, with a full vault",
    "it goes on from the vault's newest, with the weights of an unbroken run",
)
def true_on_an_empty_disk(bench: Bench) -> Verdict:
    expected = bench.play(made_whole, "unbroken").found
    bench.play(true, dies=True)
    shutil.rmtree(Path(bench.folder, "a"))
    done = bench.play(true)
    return Verdict(done.found == expected, "weights equal" if done.found == expected else done.last)


def made_whole(side: str, out: str, vault: str | None, **more: Any) -> None:
    """An unbroken run."""
    trainer = made(side, out, vault, **more)
    trainer.train()
    tell(digest(trainer.model))
