"""Saves beside the training on a GPU: pinned copies on a stream of their own, stock's bytes, and a bit-exact resume.

``python -m pytest -q -s tests/gpu`` takes less than five minutes on one GPU, downloads nothing, and prints its figures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests import ROOT
from tests.gpu.killed import Gaps, large_model
from tests.servers import free_ports
from tests.trainer.async_kit import asked, contents
from tests.trainer.kit import Recorder, trainer
from vaultlayer_hf.state.capture.arena import Arena
from vaultlayer_hf.state.capture.copying import StateCopy

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.timeout(280),
]


@pytest.fixture(autouse=True)
def _the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Kernels that give the same numbers each time."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"bf16": True},
    "fp16, GradScaler": {"fp16": True},
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_files_are_stocks(precision: str, tmp_path: Path) -> None:
    """Every file of every checkpoint has the bytes that the stock Trainer writes."""
    out = tmp_path / "out"
    more = {"use_cpu": False, "max_steps": 6, **PRECISIONS[precision]}
    stalls, ours = Gaps(), Gaps()
    stock = trainer(out, cls=transformers.Trainer, model=large_model(), callbacks=[stalls.callback], **more)
    stock.train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    run = trainer(
        out, resume=asked(tmp_path / "vault"), model=large_model(), callbacks=[ours.callback], **more
    )
    heard = Recorder(run)
    run.train()
    assert contents(out) == expected
    assert not [event.message for event in heard.events if "async_save" in event.message]
    print(f"{precision} on {torch.cuda.get_device_name()}: the same bytes; stock {stalls}, ours {ours}")


def test_the_copy_runs_beside(tmp_path: Path) -> None:
    """A copy into pinned memory doesn't wait for the processor, and holds what the state was at its start."""
    tensors = [torch.full((2**26,), float(number), device="cuda") for number in range(4)]
    arena = Arena(pinned=True)
    storages = [one.untyped_storage() for one in tensors]
    copy = StateCopy(arena, storages, beside={one.data_ptr() for one in storages})
    arena.reserve(copy.size)
    assert arena.pinned
    torch.cuda.synchronize()
    begin = time.perf_counter()
    copy.start(tensors)
    returned = time.perf_counter() - begin
    copy.hold_device()
    for one in tensors:
        one.add_(1)  # what an optimizer's step would do
    copy.note_step()
    copy.wait()
    took = time.perf_counter() - begin
    for number, storage in enumerate(storages):
        held = torch.empty(0).set_(copy.of(storage), 0, (2**26,), (1,))
        assert bool((held == number).all())
    print(f"1 GiB: returned after {returned * 1e3:.1f} ms, copied after {took * 1e3:.1f} ms")
    assert returned < took


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the training of killed.py in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.gpu.killed", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def line(ended: subprocess.CompletedProcess[str], name: str) -> str:
    """Return what a line of its output says."""
    assert ended.returncode == 0, ended.stderr[-3000:]
    return next(one for one in ended.stdout.splitlines() if one.startswith(name)).removeprefix(name).strip()


def test_killed_and_resumed_to_the_same_weights(tmp_path: Path) -> None:
    """A training that is killed behind a save goes on from it, and ends bit for bit as the one that wasn't."""
    unbroken = program(tmp_path / "a", tmp_path / "unbroken")
    killed = program(tmp_path / "b", tmp_path / "vault", 5)
    assert killed.returncode == -9, killed.stderr[-3000:]
    resumed = program(tmp_path / "b", tmp_path / "vault")
    assert line(resumed, "WEIGHTS") == line(unbroken, "WEIGHTS")
    assert "starts fresh" not in resumed.stderr
    assert line(unbroken, "SAID") == ""
    print(f"gaps with a save: {line(unbroken, 'GAPS')}")


def test_one_rank_of_nccl(tmp_path: Path) -> None:
    """The one rank of a process group on NCCL saves beside its training, too."""
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    ended = program(tmp_path / "out", tmp_path / "vault", MASTER_PORT=str(free_ports(1)[0]), **group)
    assert line(ended, "RANKS").startswith("1 ")
    assert "nccl" in line(ended, "RANKS")
    assert line(ended, "SAID") == ""
