"""A training that is told to stop, as one process of the fork server: one rank, or one of several.

It writes a journal, one JSON object a line: each step, each event of the vault, and whether train() came back.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import torch
import transformers
from transformers import TrainerCallback

from tests.kit.inside import listen
from tests.ranks.train_ranks import Journal
from tests.trainer.kit import Boom, FailAt, Tokens, model, trainer, weights
from vaultlayer_hf import Checkpointer, Settings, VaultLayerCallback


class Script(TrainerCallback):
    """Takes ``pace`` seconds a step, saves at ``saves``, and sends itself ``signals`` = {step: [name, ...]}."""

    def __init__(
        self, journal: Journal, pace: float, saves: list[int], signals: dict[str, list[str]]
    ) -> None:
        self.journal, self.pace, self.saves, self.signals = journal, pace, saves, signals

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        time.sleep(self.pace)
        self.journal.note(step=state.global_step)
        if state.global_step in self.saves:
            control.should_save = True
        for name in self.signals.get(str(state.global_step), ()):
            os.kill(os.getpid(), signal.Signals[name])


def train(
    output: str,
    journal: str,
    vault: str,
    *,
    settings: dict[str, Any] | None = None,
    steps: int = 2000,
    pace: float = 0.03,
    saves: list[int] | None = None,
    signals: dict[str, list[str]] | None = None,
    thread: bool = False,
    handler: bool = False,
    alone: bool = False,
    large: bool = False,
    slow_rows: float = 0.0,
    slow_metric: float = 0.0,
) -> None:
    """Train; ``thread``: not on the main thread. ``handler``: with a handler of one's own for SIGTERM.

    ``slow_rows``, ``slow_metric``: with an evaluation behind step 3, of 200 rows that take so many seconds each, or
    whose metric takes so many.

    ``large``: files of 17 and 34 MB, which a process of their own moves.

    ``alone``: stock Trainer with the callback, whose training breaks off behind step 3, and SIGTERM comes then.
    """
    torch.set_num_threads(1)
    notes = Journal(journal)
    if handler:
        signal.signal(signal.SIGTERM, lambda number, frame: notes.note(own=number))
    more: dict[str, Any] = {"ddp_backend": "gloo"} if int(os.environ.get("WORLD_SIZE", "1")) > 1 else {}
    if alone:
        _break_off(output, vault, notes)
    if large:
        more["model"] = model(vocab=65536, hidden=64)
    if slow_rows or slow_metric:
        more |= {"eval_dataset": Slow(slow_rows, notes), "eval_strategy": "steps", "eval_steps": 3}
        more |= {
            "compute_metrics": lambda found: _measure(slow_metric, notes),
            "per_device_eval_batch_size": 1,
        }
    made = trainer(
        output,
        resume=Settings(vault=vault, **(settings or {})),
        callbacks=[Script(notes, pace, saves or [], signals or {})],
        save_strategy="no",
        max_steps=steps,
        **more,
    )
    listen(made, _noting(notes))

    def run() -> None:
        try:
            made.train()
        except KeyboardInterrupt:
            notes.note(interrupted=made.state.global_step)
            raise SystemExit(130) from None
        finally:
            mine = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            notes.note(over=made.state.global_step, sigterm_is_handled=mine)
        notes.note(returned=made.state.global_step, weights=weights(made.model))

    if thread:
        other = threading.Thread(target=run)
        other.start()
        other.join()
    else:
        run()


class Slow(Tokens):
    """Rows of an evaluation; the first says that it has begun."""

    def __init__(self, seconds: float, notes: Journal) -> None:
        super().__init__(200 if seconds else 4)
        self.seconds, self.notes = seconds, notes

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index < 4:
            self.notes.note(evaluating=True)
        time.sleep(self.seconds)
        return super().__getitem__(index)


def _measure(seconds: float, notes: Journal) -> dict[str, float]:
    notes.note(measuring=True)
    time.sleep(seconds)
    notes.note(measured=True)
    return {"x": 1.0}


def _break_off(output: str, vault: str, notes: Journal) -> None:
    made = trainer(
        output, cls=transformers.Trainer, callbacks=[VaultLayerCallback(vault), FailAt(3)], save_strategy="no"
    )
    try:
        made.train()
    except Boom:
        notes.note(broke_off=made.state.global_step)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
    notes.note(lives_on=True)


def _noting(notes: Journal) -> Any:
    return lambda event: notes.note(event=event.kind, message=event.message, about=event.fields.get("step"))


def loop(
    output: str, journal: str, vault: str, *, settings: dict[str, Any] | None = None, steps: int = 2000
) -> None:
    """Train a layer in a loop of one's own, on one rank or on several that average their gradients."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    notes = Journal(journal)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    given = Settings(vault=vault, **{"save_every": "none", **(settings or {})})
    ckpt = Checkpointer(given, model=model, optimizer=optimizer, output_dir=output)
    listen(ckpt, _noting(notes))
    for step in range(ckpt.resume(), steps):
        loss = model(torch.ones(2, 8) * step / steps).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        for parameter in model.parameters() if dist.is_initialized() else ():
            dist.all_reduce(parameter.grad)
        optimizer.step()
        time.sleep(0.02)
        notes.note(step=step + 1, over=step + 1)
        ckpt.step(loss=loss)
    ckpt.finish()
    notes.note(returned=steps)
