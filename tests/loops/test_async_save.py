"""A loop's saves beside its training: the same files, whole or not there; where that isn't safe, training waits."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tests.forks import ForkServer
from tests.kit.copies import slow_copy
from tests.kit.inside import listen
from tests.loops.training import Average
from vaultlayer_hf import Checkpointer, Settings, open_vault
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.loops.async_fit import LoopFacts, choose_for_loop
from vaultlayer_hf.state.capture import copier, copying
from vaultlayer_hf.state.capture.fit import OptimizerFacts
from vaultlayer_hf.state.capture.recorded import Recorded
from vaultlayer_hf.state.capture.stepped import optimizer_facts
from vaultlayer_hf.state.capture.writing import FileWriter
from vaultlayer_hf.vault.workspace import workspace

pytestmark = pytest.mark.usefixtures("copies_of_small_states")
WIDTH = 600
STEPS = 4
Changing = Callable[[int, torch.nn.Module], object]


class Rows(torch.utils.data.Dataset[torch.Tensor]):
    """Rows that the workers augment at random."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((WIDTH,), float(index)) / 16 + torch.rand(WIDTH)


class Run:
    """One training in a folder.

    Attributes:
        said: every event.
        model: as it was in the end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mode: Any = "auto",
        accelerate: bool = False,
        workers: int = 0,
        steps: int = STEPS,
        behind_save: Changing = lambda step, model: None,
    ) -> None:
        torch.manual_seed(0)
        self.folder, self.said = folder, list[Event]()
        self.model: Any = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, WIDTH), torch.nn.BatchNorm1d(WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        )
        optimizer: Any = torch.optim.AdamW(self.model.parameters())
        schedule: Any = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        loader: Any = DataLoader(Rows(), batch_size=4, shuffle=True, num_workers=workers)
        given: dict[str, Any] = {"model": self.model, "optimizer": optimizer, "scheduler": schedule}
        if accelerate:
            from accelerate import Accelerator

            given = {"accelerator": (accelerator := Accelerator(cpu=True))}
            self.model, optimizer, schedule, loader = accelerator.prepare(
                self.model, optimizer, schedule, loader
            )
        settings = Settings(vault=str(folder / "vault"), async_save=mode, keep_last=None, local_keep_last=9)
        ckpt = Checkpointer(settings, save_every=2, output_dir=folder / "out", **given)
        average = Average(self.model)
        ckpt.add("average", average)
        listen(ckpt, self.said.append)
        ckpt.resume()
        for step, batch in ckpt.steps(loader, total=steps):
            self.model(batch).pow(2).mean().backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            average.update()
            ckpt.step(loss=float(step))
            behind_save(step + 1, self.model)
        ckpt.finish()

    def contents(self) -> dict[str, str]:
        """A digest of each file of each checkpoint."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.glob("out/checkpoint-*/**/*"))
            if path.is_file()
        }

    def steps(self) -> list[int]:
        """Steps of the checkpoints in the vault."""
        with open_vault(str(self.folder / "vault")) as vault:
            return [commit.step for commit in vault.checkpoints()]

    def messages(self, what: str) -> list[str]:
        """Messages that hold these words."""
        return [event.message for event in self.said if what in event.message]


@pytest.mark.parametrize(
    ("accelerate", "workers"), [(False, 1), pytest.param(True, 0, marks=pytest.mark.slow)]
)
def test_the_files_are_the_same(
    accelerate: bool, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]
) -> None:
    """Every file has the bytes that a save has that training waits for: the place in the data, what workers have drawn
    and an object that changes outside of the step are of the save's moment, however late the copy runs."""
    slow_copy(monkeypatch)
    waited = Run(tmp_path / "a", mode="off", accelerate=accelerate, workers=workers)
    assert not copies
    beside = Run(tmp_path / "b", accelerate=accelerate, workers=workers)
    assert len(copies) == 2  # of the steps 2 and 4: a loop doesn't say which is its last
    assert len(beside.contents()) > 10
    assert beside.contents() == waited.contents()
    assert beside.steps() == [2, 4]
    assert not beside.messages("async_save")
    assert not list(workspace(tmp_path / "b/out").glob("pending-*"))


def test_a_step_that_does_not_wait_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anything in front of the step, a torn copy is noticed: it is no checkpoint, and is never committed."""
    slow_copy(monkeypatch)
    monkeypatch.setattr(copying.StateCopy, "hold_device", lambda self: None)
    run = Run(tmp_path, steps=6)
    (lost,) = run.messages("isn't committed")
    assert "checkpoint-4" in lost  # that of step 2 was over before its save returned
    assert "the optimizer stepped before the copy was over" in lost
    assert run.steps() == [2, 6]


def test_weights_that_change_outside_of_the_step_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An average that is swapped in behind a save, in a way that torch doesn't count, costs that checkpoint."""
    slow_copy(monkeypatch)

    def swap(step: int, model: torch.nn.Module) -> None:
        for parameter in model.parameters() if step == 4 else ():
            parameter.data.mul_(0.5)

    run = Run(tmp_path, behind_save=swap, steps=6)
    (lost,) = run.messages("isn't committed")
    assert "parameters were changed before the copy was over" in lost
    assert run.messages("while the state is copied: parameters change outside of the optimizer's step")
    assert run.steps() == [2, 6]


def test_weights_that_always_change_outside_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]
) -> None:
    """A loop that clamps its weights behind each step loses no checkpoint: the first save finds it out."""
    slow_copy(monkeypatch)

    def clamp(step: int, model: torch.nn.Module) -> None:
        for parameter in model.parameters():
            parameter.data.clamp_(-0.03, 0.03)

    waited = Run(tmp_path / "a", mode="off", behind_save=clamp)
    beside = Run(tmp_path / "b", behind_save=clamp)
    assert len(copies) == 2
    assert beside.contents() == waited.contents()
    (said,) = beside.messages("async_save")
    assert "parameters change outside of the optimizer's step" in said
    assert not beside.messages("isn't committed")


class Twice(torch.optim.SGD):
    """Steps a second optimizer inside it, as those do that look ahead or around."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1)
        self.inner = [torch.optim.SGD(self.param_groups, lr=0.1)]


class Uncalled(torch.optim.SGD):
    """Takes hooks and never calls them: torch's own ``__init__``, which puts them around a step, wasn't called."""

    def __init__(self, parameters: Any) -> None:
        self.param_groups, self.state = [{"params": list(parameters)}], {}

    def step(self, closure: Any = None) -> None:
        """Nothing."""


def test_optimizers_that_step_at_other_moments() -> None:
    """What is inside an optimizer, and whether its hooks are ever called, is looked at: not its class alone."""
    weight = torch.nn.Parameter(torch.ones(2))
    assert optimizer_facts([torch.optim.SGD([weight], lr=0.1)], [weight]) == OptimizerFacts()
    assert optimizer_facts([Twice([weight])], [weight]).steps_another
    assert not optimizer_facts([Uncalled([weight])], [weight]).has_step_hooks


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that can't be written costs that checkpoint; the end is saved again where it was the last one."""
    write, torn = FileWriter.write_file, []

    def failing(self: FileWriter, one: Recorded, copy_of: Any) -> Any:
        if not torn and "optimizer" in one.path.name:
            torn.append(one.path)
            raise OSError("no such luck")
        return write(self, one, copy_of)

    monkeypatch.setattr(FileWriter, "write_file", failing)
    run = Run(tmp_path, steps=2)
    (lost,) = run.messages("isn't committed")
    assert "no such luck" in lost
    assert run.steps() == [2]


def test_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]) -> None:
    """With too little memory for a copy training waits for the files, and the reason is said once."""
    monkeypatch.setattr(copier, "free_memory", lambda: 100 * 2**20)
    run = Run(tmp_path)
    (said,) = run.messages("async_save")
    assert "host memory" in said
    assert not copies
    assert run.steps() == [2, 4]


def test_a_nan_is_noted(tmp_path: Path) -> None:
    """Whether the state is finite is found out from the copy, and noted with the commit."""

    def spoil(step: int, model: torch.nn.Module) -> None:
        if step == 3:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))

    run = Run(tmp_path, behind_save=spoil)
    assert "checkpoint-4" in run.messages("isn't finite")[0]


@pytest.mark.parametrize(
    ("facts", "mode", "why"),
    [
        ({}, "overlapped", ""),
        ({"world_size": 2}, "waiting", "2 ranks"),
        ({"engine": "FSDP"}, "waiting", "FSDP"),
        ({"optimizers": 0}, "copied", "no optimizer"),
        ({"steps_in_backward": True}, "copied", "backward"),
        ({"swaps_for_evaluation": True}, "copied", "evaluation"),
        ({"steps_another": True}, "copied", "through another one"),
        ({"has_step_hooks": False}, "copied", "in front of the optimizer's step"),
    ],
)
def test_where_it_is_safe(facts: dict[str, Any], mode: str, why: str) -> None:
    """What isn't safe is copied before the save returns, or waited for, each with its reason."""
    fit = choose_for_loop(LoopFacts(**facts))
    assert fit.mode == mode
    assert why in fit.reason
    assert bool(fit.reason) == (mode != "overlapped")


def test_an_optimizer_that_steps_elsewhere(tmp_path: Path, copies: list[int]) -> None:
    """Where nothing can be put in front of the step, the copy is over when the save returns, and right."""

    class Own:
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.param_groups, self.state, self._inner = inner.param_groups, inner.state, inner
            self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict

    model = torch.nn.Linear(WIDTH, WIDTH)
    inner = torch.optim.AdamW(model.parameters())
    settings = Settings(vault=str(tmp_path / "vault"), async_save="auto")
    ckpt = Checkpointer(
        settings, model=model, optimizer=Own(inner), save_every=1, output_dir=tmp_path / "out"
    )
    said: list[Event] = []
    listen(ckpt, said.append)
    ckpt.resume()
    for _ in range(2):
        model(torch.ones(WIDTH)).sum().backward()
        inner.step()
        saved = model.weight.detach().clone()
        ckpt.step()
    ckpt.finish()
    assert copies
    found = torch.load(tmp_path / "out/checkpoint-2/optimizer.pt", weights_only=True)
    assert torch.equal(found["state"][0]["exp_avg"], inner.state_dict()["state"][0]["exp_avg"])
    assert torch.equal(saved, model.weight)
    assert json.loads((tmp_path / "out/checkpoint-2/vaultlayer.json").read_text())["step"] == 2


def limited(folder: str) -> None:
    """Train in a process that may take less memory than a copy needs; print what was said, and the checkpoints."""
    copier.SMALL = 2**20
    torch.set_num_threads(1)
    taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    most = taken + 240 * 2**20  # enough to train in; a copy leaves more than that free
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    run = Run(Path(folder))
    print(*run.messages("async_save"), run.steps(), flush=True)


@pytest.mark.slow
def test_under_a_real_limit(forks: ForkServer, tmp_path: Path) -> None:
    """A process whose own limit leaves no room for a copy saves as ever, says so once, and ends its training."""
    ended = forks.run("tests.loops.test_async_save:limited", {"folder": str(tmp_path)}, tmp_path / "log")
    assert ended.code == 0, ended.errors
    assert ended.output.count("of host memory, and") == 1
    assert "[2, 4]" in ended.output
