"""A training that saves beside itself, and is killed or told to stop at a moment of such a save."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.kit.within_save import kill_within_save
from tests.trainer.kit import Boom, Do, Recorder, big_model, steps_of, trainer, wait_for, weights
from vaultlayer_hf import Settings, VaultLayerCallback
from vaultlayer_hf.state.capture import copier, memory
from vaultlayer_hf.state.capture.writing import FileWriter

AT = "checkpoint-4"
_LEFT = 3 * 2**30
"""Bytes of address space that a limited training has left: enough to train in."""


def train(output: str, vault: str, moment: str = "", steps: int = 8) -> None:
    """Train, and say what came of it.

    ``moment``: one of the kit's MOMENTS, ``told to stop``, ``told late``, ``limited``, ``fails``, or nothing. What
    fails is a stock Trainer with the callback alone.
    """
    torch.set_num_threads(1)
    copier.SMALL = 2**20
    {
        "": lambda: None,
        "told to stop": _slow,
        "told late": lambda: _slow(2.2),
        "fails": _slow,
        "limited": _limit,
    }.get(moment, lambda: kill_within_save(moment, AT))()
    if moment == "fails":
        callbacks = [VaultLayerCallback(Settings(vault=vault, async_save="auto")), Do(on_step_begin=_fail)]
        trainer(output, cls=transformers.Trainer, model=big_model(), callbacks=callbacks).train()
    told = []
    if moment.startswith("told"):
        told = [Do(on_step_begin=lambda state: _stop(state, vault if moment == "told late" else ""))]
    run = trainer(
        output,
        resume=Settings(vault=vault, async_save="auto", grace=4.4 if moment == "told late" else 30),
        model=big_model(),
        max_steps=steps,
        callbacks=[Do(on_train_begin=_say), *told],
    )
    heard = Recorder(run)
    try:
        run.train()
    finally:
        for event in heard.events:
            print("SAID", event.kind, event.message, flush=True)
    print("WEIGHTS", weights(run.model), flush=True)


def _say(state: Any) -> None:
    print("BEGUN", state.global_step, flush=True)


def _stop(state: Any, vault: str) -> None:
    """Send this process a SIGTERM behind step 4; with a vault once that holds step 2, so that uploads are measured."""
    if state.global_step == 4:
        if vault:
            wait_for(lambda: 2 in steps_of(vault))
        os.kill(os.getpid(), signal.SIGTERM)


def _fail(state: Any) -> None:
    if state.global_step == 4:
        raise Boom


def _slow(seconds: float = 0.5) -> None:
    """Have every file that is written beside the training take a while."""
    writer: Any = FileWriter
    write = writer.write_file

    def late(self: Any, one: Any, copy_of: Any) -> Any:
        time.sleep(seconds)
        return write(self, one, copy_of)

    writer.write_file = late


def _limit() -> None:
    """Limit this process to some more memory than it has, and have it want still more left beside a copy."""
    memory.MARGIN = _LEFT
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _LEFT
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
