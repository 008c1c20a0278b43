"""Training loops of one's own, as people write them, with and without a Checkpointer, to be killed.

With RANK and its kin in the environment it is one rank of several: DDP by torch alone, or by accelerate.

``form``: ``guide`` is a loop over step numbers that draws its own batches; ``steps`` goes through a shuffled
DataLoader by ``ckpt.steps(total=…)``; ``epochs`` calls that once for each epoch; ``passes`` has loops of its own, by
``ckpt.epochs()`` and ``ckpt.batches()``; ``accelerate`` is ``steps`` with all
prepared by an Accelerator, as ``fsdp-full``, ``fsdp-sharded``, ``zero2`` and ``zero3`` are, with its plugins. Dropout,
AdamW, a cosine schedule, an average of the weights and random augmentation make every kind of lost state show in
the end.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from tests.campaign.points import SAVE_STEPS, STEPS, Points, die, stop
from tests.ranks.frameworks import believe_in_accelerators, local, zero_config, zero_parts
from vaultlayer_hf import Checkpointer, Settings
from vaultlayer_hf.state.layouts import missing_shards
from vaultlayer_hf.vault.snapshot import list_files

WIDTH = 32
ACCELERATED = {
    "accelerate": "DistributedDataParallel",
    "fsdp-full": "FSDPSequential",
    "fsdp-sharded": "FSDPSequential",
    "zero2": "DeepSpeedEngine",
    "zero3": "DeepSpeedEngine",
}
"""Forms in which an Accelerator prepares all, and the class that the model then has on several ranks."""


class Samples(Dataset[torch.Tensor]):
    """Fixed random samples; with ``augment`` each is disturbed anew whenever it is fetched."""

    def __init__(self, count: int, augment: bool) -> None:
        self.rows = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(7))
        self.augment = augment

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        if not self.augment:
            return self.rows[index]
        noise = torch.randn(WIDTH) * random.random() * numpy.random.rand()
        return self.rows[index] + 0.1 * noise


class Stream(IterableDataset[torch.Tensor]):
    """The same without indices: in each pass in another order, split among workers; with ``augment`` as above."""

    def __init__(self, count: int, augment: bool) -> None:
        self.samples, self.passes = Samples(count, augment), 0

    def order(self) -> list[int]:
        order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(self.passes))
        info = torch.utils.data.get_worker_info()
        found: list[int] = (order if info is None else order[info.id :: info.num_workers]).tolist()
        return found

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = self.order()
        self.passes += 1
        for index in order:
            yield self.samples[index]


class Telling(Stream):
    """One that tells where it is."""

    at = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = self.order()
        while self.at < len(order):
            self.at += 1
            yield self.samples[order[self.at - 1]]
        self.passes, self.at = self.passes + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"passes": self.passes, "at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.passes, self.at = state["passes"], state["at"]


DATA: dict[str, Any] = {"samples": Samples, "stream": Stream, "telling": Telling}


class Average:
    """A running average of the weights: an object with a state of its own."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.values = {name: value.detach().clone() for name, value in model.named_parameters()}

    def update(self) -> None:
        for name, value in self.model.named_parameters():
            self.values[name].mul_(0.9).add_(_whole(value.detach()), alpha=0.1)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.values

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.values = copy.deepcopy(state)


def _whole(value: Any) -> torch.Tensor:
    found: torch.Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return found


def build(steps: int, dropout: float = 0.2) -> tuple[torch.nn.Module, Any, Any]:
    """Return a model, its optimizer and its schedule."""
    torch.manual_seed(3)
    random.seed(3)
    numpy.random.seed(3)
    model = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH),
        torch.nn.Dropout(dropout),
        torch.nn.ReLU(),
        torch.nn.Linear(WIDTH, WIDTH),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def _accelerator(form: str, stateful: bool) -> Any:
    """Return an Accelerator for a form of training; ``stateful``: it makes torchdata's loaders."""
    from accelerate import Accelerator, PartialState
    from accelerate.utils import DataLoaderConfiguration, DeepSpeedPlugin, FullyShardedDataParallelPlugin

    if form.startswith("fsdp"):
        PartialState(cpu=True)
        believe_in_accelerators()
        kind = "FULL_STATE_DICT" if form == "fsdp-full" else "SHARDED_STATE_DICT"
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            state_dict_type=kind,
            auto_wrap_policy="size_based_wrap",
            min_num_params=100,
            cpu_ram_efficient_loading=False,
        )
        return Accelerator(cpu=True, fsdp_plugin=plugin)
    if form.startswith("zero"):
        PartialState(cpu=True)  # as the Trainer does it: Accelerator(cpu=True) would leave DeepSpeed out
        config = zero_config(int(form[-1]), train_micro_batch_size_per_gpu=4)
        return Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config))
    config = DataLoaderConfiguration(use_stateful_dataloader=stateful)
    return Accelerator(cpu=True, dataloader_config=config)


class Loop:
    """One training, of one rank or of one of several: ``learn`` does a step on a batch."""

    def __init__(
        self,
        steps: int,
        rows: int,
        data: str,
        augment: bool,
        workers: int,
        persistent: bool,
        form: str,
        stateful: bool,
    ) -> None:
        accelerate = form in ACCELERATED
        self.steps = steps
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.model, self.optimizer, self.schedule = build(steps)
        self.average = Average(self.model if not form.startswith("zero") else torch.nn.Identity())
        made: Any = DataLoader
        if stateful and not accelerate:
            from torchdata.stateful_dataloader import StatefulDataLoader as made
        samples, sampler = DATA[data](rows, augment), None
        self.accelerator: Any = None
        if accelerate:
            self.accelerator = _accelerator(form, stateful)
        elif self.world > 1:
            torch.distributed.init_process_group("gloo")
            self.model = torch.nn.parallel.DistributedDataParallel(self.model)
            sampler = torch.utils.data.DistributedSampler(samples, seed=5)
        self.loader: Any = made(
            samples,
            batch_size=4,
            shuffle=sampler is None and data == "samples",
            sampler=sampler,
            num_workers=workers,
            persistent_workers=persistent,
        )
        if self.accelerator is not None:
            self.model, self.optimizer, self.schedule, self.loader = self.accelerator.prepare(
                self.model, self.optimizer, self.schedule, self.loader
            )
        if self.world > 1:
            assert type(self.model).__name__ == ACCELERATED.get(form, "DistributedDataParallel")
            assert torch.distributed.get_backend() == "gloo"
            torch.manual_seed(3 + torch.distributed.get_rank())

    def learn(self, batch: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = ((self.model(batch) - batch) ** 2).mean()
        if self.accelerator is not None:
            self.accelerator.backward(loss)
        else:
            loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.average.update()
        return loss

    def draw(self) -> torch.Tensor:
        """A batch as the guide's loop draws it: by torch's own random numbers."""
        rows = self.loader.dataset.rows
        return rows[torch.randint(0, len(rows), (4,))]

    def plain(self) -> Iterator[torch.Tensor]:
        """The batches of a loop that nobody interrupts, without a Checkpointer."""
        step, epoch = 0, 0
        while step < self.steps:
            if isinstance(self.loader.sampler, torch.utils.data.DistributedSampler) and not self.accelerator:
                self.loader.sampler.set_epoch(epoch)
            for batch in self.loader:
                yield batch
                step += 1
                if step == self.steps:
                    return
            epoch += 1

    def result(self) -> str:
        """Everything that a run ends with."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict(),
            "random": {
                "torch": torch.get_rng_state(),
                "python": random.getstate(),
                "numpy": numpy.random.get_state()[1].tolist(),
            },
        }
        if type(self.model).__name__ == "DeepSpeedEngine":
            state["model"], state["optimizer"] = _of_zero(self.model.optimizer)
        found = {"step": self.steps, "wrapped": type(self.model).__name__, "tensors": _digests("", state)}
        return json.dumps(found, indent=1)


def _of_zero(optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a rank of DeepSpeed has of the weights and of the optimizer's state."""
    states = optimizer.optimizer.state.values()
    parts = zero_parts(optimizer)
    return {str(i): part for i, part in enumerate(parts)}, {str(i): state for i, state in enumerate(states)}


def _digests(path: str, value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {
            name: one for key, item in value.items() for name, one in _digests(f"{path}/{key}", item).items()
        }
    return {path: _digest(value)}


def _digest(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        data = local(value.detach()).numpy().tobytes()
    else:
        data = json.dumps(value, default=repr).encode()  # a tuple comes back as a list from some
    return hashlib.sha256(data).hexdigest()[:16]


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
) -> None:
    """Train on a vault, or as if there were none (None), and leave digests of the end in ``result``.

    ``kill``, ``side``, ``act``: see Points. ``die_at``: ``["learnt", 3]`` dies when step 3 is trained and not yet
    noted, ``["stepped", 3]`` when it is, and committed; ``["told", 3]`` gets a SIGTERM instead. ``kind`` is for other
    programs. ``pace``: seconds that a step takes at least.
    """
    torch.set_num_threads(1)
    points = Points(Path(journal), kill, side)  # two threads write here: a number is a place, not a label
    points._act = {"die": die, "stop": stop}[act]
    points.note(pid=os.getpid())
    points.install(Path(output))
    loop = Loop(steps, rows, data, augment, workers, persistent, form, stateful)
    points.note(joined=True)
    if vault is None:
        batches = (loop.draw() for _ in range(steps)) if form == "guide" else loop.plain()
        for step, batch in enumerate(batches):
            points.note(at=step, ids=[_digest(batch)])
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
        ckpt._events.listen(
            lambda event: points.note(event=event.kind, message=event.message, about=event.fields.get("step"))
        )
        start = ckpt.resume()
        points.note(start=start)
        points.phase = "train"
        for step, batch in _form(form, loop, ckpt, start):
            _settle(ckpt, points)
            points.note(at=step, ids=[_digest(batch)])
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
                _settle(ckpt, points)
                die()
        _settle(ckpt, points)
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
    """The files of a checkpoint without any one of which it would still be committed."""
    names = set(list_files(folder))
    lacks = {
        name: ckpt._content().missing(names - {name}, world) + missing_shards(folder, names - {name})
        for name in names
    }
    return sorted(name for name in names if not lacks[name])


def _settle(ckpt: Checkpointer, points: Points) -> None:
    """Wait for each upload before the next step, so that the points have an order."""
    uploader = ckpt._session.uploader if ckpt._session is not None else None
    while uploader is not None and not points.reached.is_set() and not uploader.wait(0.02):
        pass


def main() -> None:
    """Be the rank that a launcher has started: ``python -m tests.loops.program SPEC.json``, as tests.ranks has it."""
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
