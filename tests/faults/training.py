"""The program that faults happen to: a real Trainer on a tiny model. Each step takes a few milliseconds at least.

It writes a journal: what was saved (with digests of the files), what was acknowledged, when the fault began and ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments, set_seed

from tests.campaign.killed_training import Samples, Tiny
from tests.faults.kinds import Fault, fault_named
from tests.kit.inside import listen, session_of, use_store
from vaultlayer_hf import Settings, Trainer, VaultLayerError
from vaultlayer_hf.base.events import Event

STEPS, SAVE_STEPS = 30, 3
BEGIN, END = 7, 19
"""The steps at whose ends a fault begins and is over."""
_STEP_SECONDS = 0.02
_COMPARED = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
"""Files of a checkpoint that a restore leaves as they are."""


class Journal:
    """Lines of JSON that a kill can't take back."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, **fields: Any) -> None:
        """Write a line, with the time."""
        os.write(self._file, (json.dumps({"time": time.monotonic(), **fields}) + "\n").encode())


def digests(folder: Path) -> dict[str, str]:
    """Return digests of those files of a checkpoint folder that never change."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _COMPARED}


class Script(TrainerCallback):
    """Begins and ends the fault, notes what was saved, and dies where it is told to."""

    def __init__(self, journal: Journal, fault: Fault | None, *, kill_at: int | None, resuming: bool) -> None:
        self._journal, self._fault, self._kill_at, self._resuming = journal, fault, kill_at, resuming
        self.trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        there = digests(folder) if state.global_step else {}
        self._journal.note(start=state.global_step, digests=there)
        if self._resuming and self._fault is not None:
            self._end()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        time.sleep(_STEP_SECONDS)
        step = state.global_step
        self._journal.note(step=step)
        if self._fault is not None and not self._resuming:
            began = time.monotonic()
            if step == BEGIN:
                session_of(self.trainer).uploader.wait(20)  # what was saved before is in
                if self._fault.begins:
                    self._fault.begin()
                self._journal.note(begin=self._fault.name)
            elif step == END:
                self._end()
            self._journal.note(
                aside=time.monotonic() - began
            )  # the fault's own making, which training waits for
        if step == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if all((folder / name).exists() for name in _COMPARED):  # else the save was given up
            self._journal.note(saved=state.global_step, digests=digests(folder))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._journal.note(trained=state.global_step)

    def _end(self) -> None:
        assert self._fault is not None
        if self._fault.begins:
            self._fault.end()
        self._journal.note(end=self._fault.name)


@contextmanager
def _fault(name: str, place: Path, journal: Journal) -> Iterator[Fault | None]:
    fault = fault_named(name, place, journal.note) if name else None
    try:
        if fault is not None:
            fault.prepare()
        yield fault
    finally:
        if fault is not None:
            if fault.begins:
                fault.end()
            fault.close()


def train(
    vault: str,
    output: str,
    journal: str,
    place: str,
    *,
    fault: str = "",
    resuming: bool = False,
    steps: int = STEPS,
    kill_at: int | None = None,
) -> None:
    """Train on a vault for ``steps`` steps with a fault in the middle, or around the start where it is ``resuming``."""
    torch.set_num_threads(1)
    told = Journal(journal)
    with _fault(fault, Path(place), told) as meddling:
        set_seed(3)
        script = Script(told, meddling, kill_at=kill_at, resuming=resuming)
        trainer = Trainer(
            model=Tiny(),
            args=TrainingArguments(
                output_dir=output,
                max_steps=steps,
                save_steps=SAVE_STEPS,
                per_device_train_batch_size=4,
                learning_rate=1e-2,
                logging_steps=1000,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=Samples(),
            callbacks=[script],
            resume=Settings(vault=vault, keep_last=None, resume_timeout=30.0, flush_timeout=60.0),
        )
        script.trainer = trainer

        def note(event: Event) -> None:
            if event.kind == "commit":
                told.note(commit=event.fields["number"], of=event.fields["step"])
            elif event.kind in ("restore", "adopt", "walk-back", "trouble", "abandon", "fenced"):
                told.note(event=event.kind, message=event.message)

        listen(trainer, note)
        if meddling is not None and (wrapped := meddling.store(vault)) is not None:
            use_store(trainer, wrapped)
        if resuming and meddling is not None:
            meddling.begin_for_a_start()
            told.note(begin=meddling.name)
        try:
            trainer.train()
        except VaultLayerError as error:
            told.note(refused=type(error).__name__, message=str(error))
            raise
        told.note(ended=trainer.state.global_step)
