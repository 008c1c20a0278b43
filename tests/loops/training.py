"""One training as people write it, of one rank or of several, without a Checkpointer: model, optimizer, schedule, data.

Dropout, AdamW, a cosine schedule, an average of the weights and random augmentation make every kind of lost state show
in the end.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import numpy
import torch
from torch.utils.data import DataLoader

from tests.loops.samples import DATA, WIDTH
from tests.ranks.frameworks import believe_in_accelerators, local, zero_config, zero_parts

ACCELERATED = {
    "accelerate": "DistributedDataParallel",
    "fsdp-full": "FSDPSequential",
    "fsdp-sharded": "FSDPSequential",
    "zero2": "DeepSpeedEngine",
    "zero3": "DeepSpeedEngine",
}
"""Forms in which an Accelerator prepares all, and the class that the model then has on several ranks."""


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
        found = {"step": self.steps, "wrapped": type(self.model).__name__, "tensors": digests("", state)}
        return json.dumps(found, indent=1)


def _of_zero(optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a rank of DeepSpeed has of the weights and of the optimizer's state."""
    states = optimizer.optimizer.state.values()
    parts = zero_parts(optimizer)
    return {str(i): part for i, part in enumerate(parts)}, {str(i): state for i, state in enumerate(states)}


def digests(path: str, value: Any) -> dict[str, str]:
    """Return the digest of each value in nested dictionaries, by its path."""
    if isinstance(value, dict):
        return {
            name: one for key, item in value.items() for name, one in digests(f"{path}/{key}", item).items()
        }
    return {path: digest(value)}


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits that stand for a tensor's bytes, or for any other value."""
    if isinstance(value, torch.Tensor):
        data = local(value.detach()).numpy().tobytes()
    else:
        data = json.dumps(value, default=repr).encode()  # a tuple comes back as a list from some
    return hashlib.sha256(data).hexdigest()[:16]
