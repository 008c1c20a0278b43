"""What accelerate's save_state leaves out of what its optimizers train comes back as it does in a plain loop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin

from tests.kit.inside import listen
from tests.servers import free_ports
from vaultlayer_hf import Checkpointer
from vaultlayer_hf.base.events import Event, EventKind
from vaultlayer_hf.loops import loose_parameters


def slower(step: int) -> float:
    """What a new group's rate is multiplied by."""
    return float(0.9**step)


class Training:
    """Two layers of which the first is left out at first, and a temperature that no model holds."""

    def __init__(self, folder: Path, *, grows: bool = False) -> None:
        torch.manual_seed(0)
        self.accelerator = Accelerator(cpu=True, project_dir=folder / "script")
        self.layers: Any = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        self.temperature = torch.nn.Parameter(torch.ones(1))
        inner = torch.optim.Adam([*self.layers[1].parameters(), self.temperature], lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(inner, [lambda step: 1 / (step + 1)])
        self.layers, self.optimizer, self.schedule = self.accelerator.prepare(self.layers, inner, schedule)
        self.ckpt = Checkpointer(
            folder / "vault", accelerator=self.accelerator, save_every=1, output_dir=folder / "out"
        )
        self.events: list[Event] = []
        listen(self.ckpt, self.events.append)
        self._grows = grows

    def learn(self) -> None:
        """One step, whose clipping counts the gradients that nobody uses."""
        loss = (self.layers(torch.ones(1, 2)) * self.temperature - 3).pow(2).sum()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_([*self.layers.parameters(), self.temperature], 0.5)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    def run(self, steps: int) -> list[float]:
        """Train up to ``steps``; return all that was trained."""
        for step in range(self.ckpt.resume(), steps):
            self.learn()
            if step == 1 and self._grows:
                first = {"params": self.layers[0].parameters(), "lr": 0.2, "initial_lr": 0.2}
                self.optimizer.add_param_group(first)
                self.schedule.scheduler.base_lrs.append(0.2)
                self.schedule.scheduler.lr_lambdas.append(slower)
            self.ckpt.step()
        self.ckpt.close()
        self.accelerator.free_memory()
        trained = [*self.layers.parameters(), self.temperature]
        return torch.cat([one.detach().flatten() for one in trained]).tolist()


def test_loose_parameters_and_left_gradients_come_back(tmp_path: Path) -> None:
    """A prepared optimizer's tensor outside of the model, and gradients of a layer that it doesn't train."""
    whole = Training(tmp_path / "whole").run(5)
    Training(tmp_path / "broken").run(2)
    rest = Training(tmp_path / "broken")
    assert rest.run(5) == whole
    assert not [one.message for one in rest.events if one.kind is EventKind.INEXACT]


def test_groups_that_came_on_the_way_come_back(tmp_path: Path) -> None:
    """A prepared optimizer, and its schedule, that were given a layer more are given it ahead of accelerate's load."""
    whole = Training(tmp_path / "whole", grows=True).run(6)
    for stop in (3, 5):
        Training(tmp_path / "broken", grows=True).run(stop)
    assert Training(tmp_path / "broken", grows=True).run(6) == whole


def test_an_attached_script_is_told(tmp_path: Path) -> None:
    """Its save_state is its own, and what that leaves out is said, unless it is registered for checkpointing."""

    class Registered(torch.nn.Module):
        def __init__(self, held: torch.nn.Parameter) -> None:
            super().__init__()
            self.held = held

    for registered in (False, True):
        training = Training(tmp_path / str(registered))
        if registered:
            training.accelerator.register_for_checkpointing(Registered(training.temperature))
        training.ckpt.attach(training.accelerator)
        training.learn()
        training.accelerator.save_state(str(tmp_path / str(registered) / "script" / "step_1"))
        training.accelerator.end_training()
        training.accelerator.free_memory()
        said = [one.message for one in training.events if "leaves out 1 tensor" in one.message]
        assert bool(said) is not registered


def test_a_checkpoint_of_an_earlier_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no file of such tensors: the start goes on from it, and says so."""
    with monkeypatch.context() as earlier:
        earlier.setattr(loose_parameters, "write_loose", lambda *_: None)
        Training(tmp_path).run(2)
    rest = Training(tmp_path)
    assert rest.ckpt.resume() == 2
    rest.ckpt.close()
    rest.accelerator.free_memory()
    (said,) = [one.message for one in rest.events if one.kind is EventKind.INEXACT]
    assert "lacks the tensors that an optimizer trains and no model holds" in said


@pytest.mark.slow
def test_groups_that_an_engine_was_given_are_named(tmp_path: Path) -> None:
    """What accelerate saves of FSDP can't be loaded behind that: the save says so, and not only the start."""
    if "fsdp_version" not in FullyShardedDataParallelPlugin.__dataclass_fields__:
        pytest.skip("this accelerate has no FSDP 2")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1"]
    port = f"--master-port={free_ports(1)[0]}"
    run = subprocess.run(
        [*launch, port, "-m", "tests.loops.grown_shards", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    said = run.stdout.splitlines()
    assert said[0] == "step 0"
    assert "accelerate saves what FSDP trains by the groups that it begins with" in said[1]
