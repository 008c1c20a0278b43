"""DeepSpeed ZeRO-2 and ZeRO-3 on its CPU accelerator, where DeepSpeed is installed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.ranks.checks import change_world_size, kill_and_resume
from tests.ranks.launch import Group, Ranks
from tests.ranks.layouts import check_layout

pytest.importorskip("deepspeed", reason="pip install 'vaultlayer-hf[deepspeed]'")
pytestmark = pytest.mark.slow
STAGES = ["zero2", "zero3"]


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """A fork server for DeepSpeed on CPU. What it compiles and locks stays in a folder of its own."""
    extensions = str(tmp_path_factory.mktemp("extensions"))
    changed = {"DS_ACCELERATOR": "cpu", "TORCH_EXTENSIONS_DIR": extensions, "DS_SKIP_CUDA_CHECK": "1"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        with ForkServer("tests.ranks.train_ranks") as server:
            yield server
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("shared", [True, False])
def test_killed_and_resumed_on_empty_disks(
    forks: ForkServer,
    tmp_path: Path,
    reference: Callable[[str, int], Group],
    chance: random.Random,
    kind: str,
    shared: bool,
) -> None:
    """ZeRO's shards of all ranks come back: weights, optimizer and samples are those of an unbroken run."""
    outputs = [tmp_path / ("output" if shared else f"output-{rank}") for rank in range(2)]
    ranks = Ranks(forks, tmp_path, outputs, kind=kind, vault=str(tmp_path / "vault"))
    kill_and_resume(ranks, reference(kind, 2), chance, kills=3, longest=8.0)


@pytest.mark.parametrize("kind", STAGES)
def test_layout(reference: Callable[[str, int], Group], kind: str) -> None:
    """Each file that DeepSpeed needs is missed where it isn't there; each node gets what its ranks load."""
    check_layout(reference(kind, 2), kind)


@pytest.mark.parametrize(("kind", "written", "now"), [("zero2", 2, 4), ("zero3", 4, 2), ("zero3", 2, 1)])
def test_another_world_size_goes_on_as_stock_does(
    forks: ForkServer, tmp_path: Path, kind: str, written: int, now: int
) -> None:
    """Converted to universal by us, it goes on as stock does from one that was converted by hand."""
    change_world_size(forks, tmp_path, kind, written, now, convert=_convert)


def test_a_run_without_deepspeed_is_refused(forks: ForkServer, tmp_path: Path) -> None:
    """Stock would go on without the optimizer's state in silence; here one error on all ranks, before training."""
    vault = str(tmp_path / "vault")
    Ranks(forks, tmp_path, [tmp_path / "output"] * 2, kind="zero2", vault=vault).start(max_steps=2).succeed()
    for world, error, words in (
        (2, "NoUsableCheckpointError", "without DeepSpeed"),
        (3, "WorldSizeError", "wrote it on 2 ranks and this run has 3"),
    ):
        group = Ranks(
            forks, tmp_path / f"{world}", [tmp_path / f"output-{world}"] * world, vault=vault
        ).start()
        assert group.wait(agents=False) == [1] * world
        for rank in range(world):
            last = (group.runs[rank].folder / "stderr").read_text().strip().splitlines()[-1]
            assert error in last
            assert words in last
            assert group.started(rank) is None


def _convert(folder: Path) -> None:
    step = next(path for path in folder.glob("global_step*") if path.is_dir())
    subprocess.run(
        [
            *(sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"),
            *("--input_folder", str(step), "--output_folder", f"{step}_universal"),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "DS_ACCELERATOR": "cpu"},
    )
