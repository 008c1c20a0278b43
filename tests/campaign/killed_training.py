"""The program that is killed: an ordinary Trainer script on a tiny model, with the one argument.

Dropout, shuffling, a decaying learning rate and AdamW make every kind of lost state show in the weights. The
model is large enough (1.3 MB) that its weights and optimizer are linked into snapshots, the rest copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments, set_seed

from tests.campaign.points import SAVE_STEPS, STEPS, Points, die, stop
from tests.kit.inside import callback_of, listen, session_of
from vaultlayer_hf import Settings, Trainer
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.state.capture import copier
from vaultlayer_hf.trainer.async_save import fit
from vaultlayer_hf.trainer.async_save.guard import CaptureGuard

WIDTH = 400


class Samples(Dataset[dict[str, torch.Tensor]]):
    """24 fixed random samples."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        self.inputs = torch.randn(24, WIDTH, generator=generator)
        self.labels = torch.randn(24, WIDTH, generator=generator)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.inputs[index], "labels": self.labels[index]}


class Tiny(torch.nn.Module):
    """Two layers with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(WIDTH, WIDTH)
        self.drop = torch.nn.Dropout(0.3)
        self.second = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.second(self.drop(torch.relu(self.first(x))))
        return {"loss": ((out - labels) ** 2).mean(), "logits": out}


class _Script(TrainerCallback):
    """Notes what happens; waits for each upload before the next step, so that the points have an order."""

    def __init__(self, points: Points, pause_at: int | None) -> None:
        self.points = points
        self.pause_at = pause_at
        self.trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.points.note(start=state.global_step)
        self._wait()  # for the upload of an adopted snapshot
        self.points.phase = "train"

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.points.note(step=state.global_step)
        if state.global_step == self.pause_at:
            stop()
        if state.global_step % SAVE_STEPS == 0:
            self.points.phase = f"save {state.global_step}"

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._wait()
        self.points.phase = "finish"

    def _wait(self) -> None:
        vault = callback_of(self.trainer)
        uploader = vault.session.uploader if vault is not None and vault.session is not None else None
        while uploader is not None and not self.points.reached.is_set() and not uploader.wait(0.02):
            pass
        for guard in self.trainer.callback_handler.callbacks if self.trainer is not None else ():
            capture = guard.saves.capture if isinstance(guard, CaptureGuard) else None
            while capture is not None and not capture.done and not self.points.reached.is_set():
                time.sleep(0.002)


def train(
    vault: str | None,
    output: str,
    journal: str,
    *,
    result: str | None = None,
    steps: int = STEPS,
    kill: int | None = None,
    side: str = "before",
    label: str | None = None,
    act: str = "die",
    moved: bool = False,
    pause_at: int | None = None,
    settings: dict[str, Any] | None = None,
    beside: bool = False,
) -> None:
    """Train for ``steps`` steps on a vault (None: stock) and leave digests of the end in ``result``.

    ``kill``, ``side``, ``label``: where to act, see Points. ``act``: ``die``, ``stop``, or ``overtaken``: wait
    on the upload thread until training has queued its next checkpoint, then die; or ``lose mover``: the process that
    moves files is killed, this one goes on. ``moved``: see Points. ``pause_at``: stop after that step.
    ``beside``: saves are written beside the training, which waits for that before its next step, so that the points
    have an order.
    """
    if beside:
        copier.SMALL = 2**20
        # It stands around the Trainer's methods.
        fit.UNDERSTOOD = (
            *fit.UNDERSTOOD,
            Points.install.__module__,
        )
        settings = {**(settings or {}), "async_save": "auto"}
    torch.set_num_threads(1)
    points = Points(Path(journal), kill, side, label)
    acts = {"die": die, "stop": stop, "overtaken": lambda: _overtaken(trainer), "lose mover": _lose_mover}
    points.act = acts[act]
    points.note(pid=os.getpid())
    points.install(Path(output), moved=moved)
    set_seed(3)
    script = _Script(points, pause_at)
    options = {"keep_last": 1, "upload_concurrency": 1, "resume_timeout": 20.0, "flush_timeout": 60.0}
    trainer = Trainer(
        model=Tiny(),
        args=TrainingArguments(
            output_dir=output,
            max_steps=steps,
            save_steps=SAVE_STEPS,
            save_total_limit=2,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            lr_scheduler_type="cosine",
            logging_steps=1,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Samples(),
        callbacks=[script],
        resume=Settings(vault=vault, **{**options, **(settings or {})}) if vault else None,
    )
    script.trainer = trainer
    if vault:
        listen(trainer, lambda event: _note_event(points, event))
    trainer.train()
    points.note(ended=trainer.state.global_step)
    if result is not None:
        Path(result).write_text(json.dumps(summary(trainer)))


def summary(trainer: Any) -> dict[str, Any]:
    """Return digests of everything that a run ends with: each tensor of model and optimizer, and the losses."""
    optimizer = trainer.optimizer.state_dict()
    tensors = {f"model {name}": value for name, value in trainer.model.state_dict().items()}
    for number, state in optimizer["state"].items():
        tensors |= {f"optimizer {number} {name}": value for name, value in state.items()}
    keys = ("step", "loss", "grad_norm", "learning_rate", "epoch")
    return {
        "step": trainer.state.global_step,
        "tensors": {
            name: hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
            for name, value in tensors.items()
        },
        "groups": json.dumps(optimizer["param_groups"], sort_keys=True, default=str),
        "losses": [
            {key: entry[key] for key in keys if key in entry}
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
    }


def _note_event(points: Points, event: Event) -> None:
    points.note(event=event.kind, message=event.message, about=event.fields.get("step"))


def _lose_mover() -> None:
    """SIGKILL of the process that moves files, where it is there already."""
    for child in psutil.Process().children():
        if "mover.worker" in " ".join(child.cmdline()):
            child.kill()
            psutil.wait_procs([child])


def _overtaken(trainer: Any) -> None:
    """On the upload thread: wait until the next checkpoint is queued behind this one, then die."""
    uploader = session_of(trainer).uploader
    deadline = time.monotonic() + 20
    while len(uploader.carried) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    die()
