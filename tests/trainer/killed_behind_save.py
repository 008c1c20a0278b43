"""Trainings that are killed right behind a save, with an upload that has come to nothing.

A Trainer, a loop with a Checkpointer, and a script that is attached. Each prints the step at which it starts, and the
step of each save that has returned to the training. With RANK and its kin in the environment each is one of several.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers.trainer_utils import get_last_checkpoint

from tests.trainer import kit
from vaultlayer_hf import Checkpointer, Settings, StoreUnavailableError, Trainer
from vaultlayer_hf.session import access
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation

SAVE_EVERY = 4
STEPS = 64

down = threading.Event()
"""Set: no store of this process can be reached."""


class _Script(transformers.TrainerCallback):
    def __init__(self, kill_at: int, outage: bool) -> None:
        self.kill_at, self.outage = kill_at, outage

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        _started(state.global_step, self.kill_at, self.outage)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        _stepped(state.global_step, self.kill_at)


def trainer(output: str, vault: str | None, kill_at: int, **options: Any) -> None:
    """A Trainer. ``kill_at``: the step that it is killed behind; 0: only say where it starts. Options: of ``_begin``.

    ``vault``: None for stock, which goes on from the folder that ``get_last_checkpoint`` names.
    """
    settings, width, outage = _begin(vault, **options)
    ranks = {"ddp_backend": "gloo"} if "RANK" in os.environ else {}
    common: dict[str, Any] = {
        "model": kit.model(vocab=64 * width),
        "args": kit.arguments(output, max_steps=STEPS, save_steps=SAVE_EVERY, logging_steps=STEPS, **ranks),
        "train_dataset": kit.Tokens(),
        "callbacks": [_Script(kill_at, outage)],
    }
    if options.get("moment") == "written":
        _kill_when_written(kill_at)
    if settings is not None:
        Trainer(**common, resume=settings).train()
        return
    last = get_last_checkpoint(output) if os.path.isdir(output) else None
    transformers.Trainer(**common).train(resume_from_checkpoint=last)


def loop(output: str, vault: str, kill_at: int, **options: Any) -> None:
    """A loop with a Checkpointer; the same arguments."""
    settings, width, outage = _begin(vault, **options)
    assert settings is not None
    model, optimizer, learn = _loop(width)
    ckpt = Checkpointer(
        settings, model=model, optimizer=optimizer, save_every=f"{SAVE_EVERY} steps", output_dir=output
    )
    start = ckpt.resume()
    _started(start, kill_at, outage)
    for step in range(start, STEPS):
        ckpt.step(loss=learn(model))
        _stepped(step + 1, kill_at)


def attached(output: str, vault: str, kill_at: int, **options: Any) -> None:
    """A script with an Accelerator of its own, attached to a vault; the same arguments."""
    from accelerate import Accelerator

    settings, width, outage = _begin(vault, **options)
    assert settings is not None
    model, optimizer, learn = _loop(width)
    accelerator = Accelerator(cpu=True, project_dir=output)
    model, optimizer = accelerator.prepare(model, optimizer)
    restored = Checkpointer(settings).attach(accelerator)
    start = 0
    if restored is not None:
        accelerator.load_state()
        start = int(restored.name.removeprefix("step-"))
    _started(start, kill_at, outage)
    for step in range(start, STEPS):
        learn(model)
        if (step + 1) % SAVE_EVERY == 0:
            accelerator.save_state(f"{output}/step-{step + 1}")
        _stepped(step + 1, kill_at)


def _begin(
    vault: str | None,
    *,
    width: int = 1,
    bandwidth: str | None = None,
    outage: bool = False,
    moment: str = "",
    settings: dict[str, Any] | None = None,
    **of_ranks: Any,
) -> tuple[Settings | None, int, bool]:
    """Return the settings, the width of the model, and whether the store is out of reach once it is claimed.

    ``bandwidth``: a cap. ``moment``: ``written`` has a Trainer killed as soon as it has written ``trainer_state.json``
    of the save at its last step. ``settings``: more of them. ``of_ranks``: what a starter of ranks says besides.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    opened = access.open_store

    def refuse(operation: Operation) -> Fault | None:
        error = StoreUnavailableError(operation.name, operation.key, "there is no way to it")
        return Fault.refused(error) if down.is_set() else None

    access.open_store = lambda *args, **kwargs: FaultStore(opened(*args, **kwargs), refuse)  # type: ignore[assignment]
    # Of a save that training doesn't wait for a kill may cost the newest.
    own = {"async_save": "off", **(settings or {})}
    found = Settings(vault=vault, bandwidth=bandwidth, **own) if vault is not None else None
    return found, width, outage


def _loop(width: int) -> tuple[Any, Any, Callable[[Any], Any]]:
    size = 32 * width
    model = torch.nn.Linear(size, size)
    optimizer = torch.optim.AdamW(model.parameters())

    def learn(model: Any) -> Any:
        loss = model(torch.ones(2, size)).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return model, optimizer, learn


def _started(step: int, kill_at: int, outage: bool) -> None:
    print("START", step, flush=True)
    if kill_at == 0:
        os._exit(0)
    if outage:
        down.set()


def _stepped(step: int, kill_at: int) -> None:
    if step and step % SAVE_EVERY == 0:
        print("SAVED", step, flush=True)
    if step and step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_when_written(step: int) -> None:
    plain = transformers.TrainerState.save_to_json

    def save_to_json(self: Any, path: Any) -> None:
        plain(self, path)
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    transformers.TrainerState.save_to_json = save_to_json  # type: ignore[method-assign]
