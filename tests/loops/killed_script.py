"""A script that calls accelerate's save_state and load_state already, with the one line that leads them to a vault.

In the style of accelerate's example by_feature/checkpointing: it registers objects, saves every two steps, parses where
it was from what was loaded, and skips the batches that it has seen. No dropout: within an epoch, skip_first_batches
draws a random number that an unbroken run doesn't draw, with a vault or without.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration
from torch.utils.data import DataLoader

from tests.campaign.points import SAVE_STEPS, STEPS, Points, die
from tests.kit.inside import listen
from tests.loops.killed_loop import settle
from tests.loops.samples import Samples
from tests.loops.training import Average, build, digest, digests
from vaultlayer_hf import Checkpointer, Settings


class Progress:
    """How far the script is: registered for checkpointing."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


def train(
    vault: str | None = None,
    output: str = "",
    journal: str = "",
    *,
    naming: str = "automatic",
    result: str | None = None,
    steps: int = STEPS,
    load: str | None = "newest",
    kill: int | None = None,
    side: str = "before",
    label: str | None = None,
    act: str = "die",
    die_at: list[Any] | None = None,
    settings: dict[str, Any] | None = None,
    kind: str = "",
) -> None:
    """Train, with the vault or without one (None).

    ``naming``: ``automatic``, ``steps`` (``step_4``) or ``one`` (the same folder each time). ``load``: the folder to
    name to load_state; ``newest`` names none; None: don't load. The rest as in ``killed_loop.train``.
    """
    torch.set_num_threads(1)
    points = Points(Path(journal), kill, side)
    points.note(pid=os.getpid())
    points.install(Path(output) / ".vaultlayer")
    model, optimizer, schedule = build(steps, dropout=0.0)
    average, progress = Average(model), Progress()
    accelerator = Accelerator(
        cpu=True,
        project_config=ProjectConfiguration(
            project_dir=output, automatic_checkpoint_naming=naming == "automatic", total_limit=2
        ),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    points.note(joined=True)
    loader = DataLoader(Samples(24, False), batch_size=4, shuffle=True)
    model, optimizer, schedule, loader = accelerator.prepare(model, optimizer, schedule, loader)
    accelerator.register_for_checkpointing(average, progress)
    ckpt = None
    if vault is not None:
        patience = {"keep_last": 1, "upload_concurrency": 1, "resume_timeout": 20.0, "flush_timeout": 60.0}
        ckpt = Checkpointer(Settings(vault=vault, **{**patience, **(settings or {})}))
        listen(
            ckpt,
            lambda event: points.note(
                event=event.kind, message=event.message, about=event.fields.get("step")
            ),
        )
        found = ckpt.attach(accelerator)
        if found is not None and load is not None:
            accelerator.load_state(None if load == "newest" else load)
        points.note(start=progress.step, folder=str(found) if found else None)
    for epoch in range(progress.step // len(loader), -(-steps // len(loader))):
        loader.set_epoch(epoch)
        seen = progress.step - epoch * len(loader)
        if progress.step == steps:
            break
        for batch in skip_first_batches(loader, seen) if seen else loader:
            if ckpt is not None:
                settle(ckpt, points)
            points.note(at=progress.step, ids=[digest(batch)])
            loss = ((model(batch) - batch) ** 2).mean()
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            average.update()
            progress.step += 1
            points.note(step=progress.step)
            if die_at == ["learnt", progress.step]:
                die()
            if progress.step % SAVE_STEPS == 0:
                points.phase = f"save {progress.step}"
                folder = {"steps": f"{output}/step_{progress.step}", "one": f"{output}/last"}.get(naming)
                accelerator.save_state(folder)
            if progress.step == steps:
                break
    if ckpt is not None:
        settle(ckpt, points)
    points.phase = "finish"
    accelerator.end_training()
    if result is not None:
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "average": average.state_dict(),
        }
        end = {"step": progress.step, "wrapped": type(model).__name__, "tensors": digests("", state)}
        Path(f"{result}.new").write_text(json.dumps(end, indent=1))
        os.rename(f"{result}.new", result)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the store that ranks talk through ends with rank 0
