"""A training that forks children: MODE VAULT OUTPUT. Prints what becomes of each, as JSON; it ends as a script does."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from tests.trainer.kit import Do, trainer
from vaultlayer_hf import Checkpointer, Settings
from vaultlayer_hf.state.capture import copier

FORK = multiprocessing.get_context("fork")
PATIENCE = 60
found: dict[str, Any] = {}


def spin(_: int = 0) -> None:
    """Never end by itself."""
    while True:
        time.sleep(0.01)


def child() -> BaseProcess:
    """Start one that spins."""
    process = FORK.Process(target=spin)
    process.start()
    return process


def end_children() -> None:
    """End children as a script with a time limit does, at once and behind their start; the last one by Ctrl-C."""
    at_once, later, interrupted = child(), child(), child()
    at_once.terminate()
    time.sleep(0.3)
    later.terminate()
    for process in (at_once, later):
        process.join(PATIENCE)
        process.kill()
    with FORK.Pool(1) as pool:  # its end ends its children, busy or not
        try:
            pool.apply_async(spin).get(timeout=0.3)
        except multiprocessing.TimeoutError:
            pass
    os.kill(interrupted.pid or 0, signal.SIGINT)  # as a terminal does it to all, once
    interrupted.join(0.5)
    found["interrupted once"] = interrupted.exitcode
    os.kill(interrupted.pid or 0, signal.SIGINT)
    interrupted.join(PATIENCE)
    interrupted.kill()
    found["ended"] = [at_once.exitcode, later.exitcode, interrupted.exitcode]
    found["blocked"] = len(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def leave(how: str) -> None:
    """Fork a child that leaves the training by an exit or by an error, and note how it ends."""
    pid = os.fork()
    if pid == 0:
        if how == "exit":
            sys.exit(7)
        raise RuntimeError("this child fails")
    for _ in range(10 * PATIENCE):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            found[how] = os.waitstatus_to_exitcode(status)
            return
        time.sleep(0.1)
    found[how] = "it hangs"
    os.kill(pid, signal.SIGKILL)


def main(mode: str, vault: str, output: str) -> None:
    """Train."""
    settings = Settings(
        vault=vault,
        bandwidth="100kB",  # so that an upload is under way in front of step 5
        async_save="auto" if mode == "async" else "off",
        keep_last=None,
        save_every="4 steps" if mode in ("loop", "loops") else None,
    )
    if mode == "loops":  # this one's traps stand on those of another training
        other = Checkpointer(vault + "-first", model=torch.nn.Linear(1, 1), output_dir=output + "-first")
        other.resume()
    if mode in ("loop", "loops"):
        part = torch.nn.Linear(128, 128)
        optimizer = torch.optim.AdamW(part.parameters())
        with Checkpointer(settings, model=part, optimizer=optimizer, output_dir=output) as ckpt:
            for step in range(ckpt.resume(), 8):
                if step == 2:
                    end_children()
                if step == 4:
                    leave("exit")
                    leave("raise")
                part(torch.ones(128)).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                ckpt.step()
    else:
        copier.SMALL = 0

        def begin_step(state: Any) -> None:
            if state.global_step == 2 and mode == "trainer":
                end_children()
            if state.global_step == 4:
                leave("exit")
                leave("raise")

        trainer(output, resume=settings, save_steps=4, callbacks=[Do(on_step_begin=begin_step)]).train()
    found["left"] = sorted(path.name for path in Path(output).glob("pending-*"))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
