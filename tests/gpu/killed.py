"""A training on a GPU that saves beside itself, and may be killed behind a save.

``python -m tests.gpu.killed OUTPUT VAULT [KILL_AT]``; with RANK and its kin in the environment it is the one rank of a
process group. Prints the end's weights, how many ranks there are by what, and each gap with a save.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import torch

from tests.kit.models import tiny_llama
from tests.trainer.kit import Do, Recorder, trainer, weights
from vaultlayer_hf import Settings


def large_model() -> Any:
    """A Llama of about 60 million parameters."""
    return tiny_llama(4096, 1024, layers=6, max_position_embeddings=32)


class Gaps:
    """The seconds between a step's end and the next one's begin, where a save lies between."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._ended = 0.0
        self.callback = Do(on_step_end=self._end, on_step_begin=self._begin)

    def _end(self, state: Any) -> None:
        self._ended = time.perf_counter()

    def _begin(self, state: Any) -> None:
        if self._ended and state.global_step % 2 == 0:
            self.seconds.append(time.perf_counter() - self._ended)

    def __str__(self) -> str:
        return " ".join(f"{1e3 * one:.0f} ms" for one in self.seconds)


def train(output: str, vault: str, kill_at: int = 0) -> None:
    """Train 8 steps with a save every 2; ``kill_at``: the step at whose begin this process is killed."""
    torch.use_deterministic_algorithms(True)

    def die(state: Any) -> None:
        if kill_at and state.global_step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    gaps, gpu = Gaps(), torch.cuda.is_available()
    settings = Settings(vault=vault, async_save="auto") if vault else None
    run = trainer(
        output,
        resume=settings,
        model=large_model() if gpu else tiny_llama(64, 512),
        callbacks=[Do(on_step_begin=die), gaps.callback],
        use_cpu=not gpu,
        max_steps=8,
        bf16=True,
    )
    heard = Recorder(run)
    run.train()
    print("SAID", *(event.message for event in heard.events if "async_save" in event.message))
    print("GAPS", gaps)
    if torch.distributed.is_initialized():
        print("RANKS", torch.distributed.get_world_size(), torch.distributed.get_backend())
        torch.distributed.destroy_process_group()
    print("WEIGHTS", weights(run.model.cpu()), flush=True)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
