"""A loop with a Checkpointer, or without one, that is killed where the test says.

With RANK and its kin in the environment it is one rank of several: DDP by torch alone, or by accelerate.

``form``: ``guide`` is a loop over step numbers that draws its own batches; ``steps`` goes through a shuffled
DataLoader by ``ckpt.steps(total=…)``; ``epochs`` calls that once for each epoch; ``passes`` has loops of its own, by
``ckpt.epochs()`` and ``ckpt.batches()``; ``accelerate`` is ``steps`` with all prepared by an Accelerator, as
``fsdp-full``, ``fsdp-sharded``, ``zero2`` and ``zero3`` are, with its plugins.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.campaign.points import SAVE_STEPS, STEPS, Points, die, stop
from tests.kit.inside import being_written, listen, loop_files_of, session_of
from tests.kit.within_save import capture_small_states
from tests.loops.training import ACCELERATED, Loop, digest
from vaultlayer_hf import Checkpointer, Settings
from vaultlayer_hf.state.asked import FILE
from vaultlayer_hf.vault.snapshot import list_files


def train(
    vault: str | None = None,
    output: str = "",
    journal: str = "",
    *,
    form: str = "guide",
    result: str | None = None,
    steps: int = STEPS,
    every: str = f"{SAVE_STEPS} steps",
    rows: int = 12,
    data: str = "samples",
    augment: bool = False,
    workers: int = 0,
    persistent: bool = False,
    stateful: bool = False,
    kill: int | None = None,
    side: str = "before",
    label: str | None = None,
    act: str = "die",
    die_at: list[Any] | None = None,
    settings: dict[str, Any] | None = None,
    kind: str = "",
    pace: float = 0.0,
    beside: bool = False,
) -> None:
    """Train on a vault, or as if there were none (None), and leave digests of the end in ``result``.

    ``kill``, ``side``, ``act``: see Points. ``die_at``: ``["learnt", 3]`` dies when step 3 is trained and not yet
    noted, ``["stepped", 3]`` when it is, and committed; ``["told", 3]`` gets a SIGTERM instead. ``kind`` is for other
    programs. ``pace``: seconds that a step takes at least. ``beside``: its saves are copied and written beside it.
    """
    if beside:  # this model is so small that training would wait for its files
        capture_small_states()
        settings = {**(settings or {}), "async_save": "auto"}
    torch.set_num_threads(1)
    points = Points(Path(journal), kill, side)  # two threads write here: a number is a place, not a label
    points.act = {"die": die, "stop": stop}[act]
    points.note(pid=os.getpid())
    points.install(Path(output))
    loop = Loop(steps, rows, data, augment, workers, persistent, form, stateful)
    points.note(joined=True)
    if vault is None:
        batches = (loop.draw() for _ in range(steps)) if form == "guide" else loop.plain()
        for step, batch in enumerate(batches):
            points.note(at=step, ids=[digest(batch)])
            loop.learn(batch)
    else:
        patience = {"keep_last": 1, "upload_concurrency": 1, "resume_timeout": 20.0, "flush_timeout": 60.0}
        things = (
            {"accelerator": loop.accelerator}
            if form in ACCELERATED
            else {"model": loop.model, "optimizer": loop.optimizer, "scheduler": loop.schedule}
        )
        ckpt = Checkpointer(
            Settings(vault=vault, **{**patience, **(settings or {})}),
            dataloader=loop.loader,
            save_every=every,
            output_dir=output,
            **things,
        )
        ckpt.add("average", loop.average)
        listen(
            ckpt,
            lambda event: points.note(
                event=event.kind, message=event.message, about=event.fields.get("step")
            ),
        )
        start = ckpt.resume()
        points.note(start=start)
        points.phase = "train"
        for step, batch in _form(form, loop, ckpt, start):
            settle(ckpt, points)
            points.note(at=step, ids=[digest(batch)])
            loss = loop.learn(batch)
            time.sleep(pace)
            points.note(loss=loss.item(), trained=step)
            if die_at == ["learnt", step]:
                die()
            if die_at == ["told", step]:
                os.kill(os.getpid(), signal.SIGTERM)
            if (step + 1) % SAVE_STEPS == 0:
                points.phase = f"save {step + 1}"
            ckpt.step(loss=loss)
            points.note(step=step + 1)
            if die_at == ["stepped", step]:
                settle(ckpt, points)
                die()
        settle(ckpt, points)
        points.phase = "finish"
        ckpt.finish()
        points.note(ended=loop.steps, spare=_spare(ckpt, Path(output) / f"checkpoint-{steps}", loop.world))
    if result is not None:
        Path(f"{result}.new").write_text(loop.result())
        os.rename(f"{result}.new", result)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the store that ranks talk through ends with rank 0


def _form(form: str, loop: Loop, ckpt: Checkpointer, start: int) -> Iterator[tuple[int, torch.Tensor]]:
    if form == "guide":
        for step in range(start, loop.steps):
            yield step, loop.draw()
    elif form == "epochs":
        for _ in range(-(-loop.steps // len(loop.loader))):
            yield from ckpt.steps(loop.loader, start=start, total=loop.steps, epochs=1)
    elif form == "passes":
        step = start
        for _ in ckpt.epochs(range(loop.steps)):
            for batch in ckpt.batches(loop.loader):
                yield step, batch
                step += 1
                if step == loop.steps:
                    return
    else:
        yield from ckpt.steps(total=loop.steps)


def _spare(ckpt: Checkpointer, folder: Path, world: int) -> list[str]:
    """The files of a checkpoint without any one of which it would still be committed.

    But for what a start is compared with: without it a resume is as good, and nothing is said of what differs.
    """
    names = set(list_files(folder))
    files = loop_files_of(ckpt)
    lacks = {name: files.unwritten(folder, names - {name}, world_size=world) for name in names}
    return sorted(name for name in names if not lacks[name] and name != FILE)


def settle(ckpt: Checkpointer, points: Points) -> None:
    """Wait for each upload before the next step, so that the points have an order."""
    while not points.reached.is_set() and being_written(ckpt):
        time.sleep(0.005)
    uploader = session_of(ckpt).uploader
    while uploader is not None and not points.reached.is_set() and not uploader.wait(0.02):
        pass


def main() -> None:
    """Be the rank that a launcher has started: ``python -m tests.loops.killed_loop SPEC.json``."""
    given = json.loads(Path(sys.argv[1]).read_text())
    rank, folder = int(os.environ["RANK"]), given["folder"]
    train(
        output=given["outputs"][rank],
        journal=f"{folder}/journal-{rank}",
        result=f"{folder}/result-{rank}",
        **given["spec"],
    )


if __name__ == "__main__":
    main()
