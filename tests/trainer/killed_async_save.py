"""A training that saves beside itself, and is killed or told to stop at a moment of such a save."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.trainer.kit import Boom, Do, Recorder, big_model, trainer, weights
from vaultlayer_hf import Settings, VaultLayerCallback
from vaultlayer_hf.base import files
from vaultlayer_hf.state.capture import copier, memory, recorded
from vaultlayer_hf.trainer.async_save import saves

AT = "checkpoint-4"
MOMENTS = ("captured", "half written", "written", "renamed")
_LEFT = 3 * 2**30
"""Bytes of address space that a limited training has left: enough to train in."""


def train(output: str, vault: str, moment: str = "", steps: int = 8) -> None:
    """Train, and say what came of it; ``moment``: one of MOMENTS, ``told to stop``, ``limited``, ``fails``, or nothing.

    What fails is a stock Trainer with the callback alone.
    """
    torch.set_num_threads(1)
    copier.SMALL = 2**20
    {"": lambda: None, "told to stop": _slow, "fails": _slow, "limited": _limit}.get(
        moment, lambda: _kill(moment)
    )()
    if moment == "fails":
        callbacks = [VaultLayerCallback(Settings(vault=vault, async_save="auto")), Do(on_step_begin=_fail)]
        trainer(output, cls=transformers.Trainer, model=big_model(), callbacks=callbacks).train()
    run = trainer(
        output,
        resume=Settings(vault=vault, async_save="auto"),
        model=big_model(),
        max_steps=steps,
        callbacks=[Do(on_step_begin=_stop)] if moment == "told to stop" else [],
    )
    heard = Recorder(run)
    try:
        run.train()
    finally:
        for event in heard.events:
            print("SAID", event.kind, event.message, flush=True)
    print("WEIGHTS", weights(run.model), flush=True)


def _stop(state: Any) -> None:
    if state.global_step == 4:
        os.kill(os.getpid(), signal.SIGTERM)


def _fail(state: Any) -> None:
    if state.global_step == 4:
        raise Boom


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill(moment: str) -> None:
    """Have this process killed at a moment of the save of step 4."""
    if moment == "captured":
        saves.AsyncSaves.write = _behind(saves.AsyncSaves.write, None)  # type: ignore[method-assign]
    elif moment == "half written":
        recorded.TorchFile.write = _behind(recorded.TorchFile.write, AT)  # type: ignore[method-assign]
    elif moment == "written":
        rename = files.rename

        def before(source: Path, target: Path) -> None:
            if target.name == AT:
                _die()
            rename(source, target)

        files.rename = before
    elif moment == "renamed":
        rename = files.rename

        def behind(source: Path, target: Path) -> None:
            rename(source, target)
            if target.name == AT:
                _die()

        files.rename = behind


def _behind(method: Callable[..., Any], part: str | None) -> Callable[..., Any]:
    """Return a method behind which this process dies at the save of step 4."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if part is None and self.capture is not None and self.capture.target.name == AT:
            _die()
        found = method(self, *args, **kwargs)
        if part is not None and AT in str(self.path):
            _die()
        return found

    return call


def _slow() -> None:
    """Have every file that is written beside the training take a while."""
    write = recorded.TorchFile.write

    def late(self: Any, copy_of: Any) -> None:
        time.sleep(0.5)
        write(self, copy_of)

    recorded.TorchFile.write = late  # type: ignore[method-assign]


def _limit() -> None:
    """Limit this process to some more memory than it has, and have it want still more left beside a copy."""
    memory.MARGIN = _LEFT
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _LEFT
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
