"""accelerate's own tests of its checkpoints, under `vl run`: the hook breaks nothing of others."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tarfile

import accelerate
import pytest

from tests.run.deaths import KINDS, SAME, await_file, check, play
from tests.run.programs import SCRIPT, finish, plain, start, torchrun


@pytest.mark.slow
def test_accelerates_own_tests_pass_with_the_hook(tmp_path) -> None:
    """test_state_checkpointing.py of the installed version's sdist passes with the hook active, all of it."""
    got = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", f"accelerate=={accelerate.__version__}"),
            *("--no-binary", "accelerate", "--no-deps", "--no-build-isolation", "-d", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if got.returncode:
        pytest.skip(f"accelerate's sources can't be had here: {got.stderr[-300:]}")
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sources:
        sources.extractall(tmp_path, filter="data")
    folder = tmp_path / f"accelerate-{accelerate.__version__}"
    (folder / "conftest.py").write_text(
        "import transformers.trainer\nassert transformers.Trainer._vaultlayer_run\n"
    )
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/test_state_checkpointing.py",
    )
    ran = finish(start(folder, *command), folder)
    assert ran.code == 0, ran.out[-3000:]
    passed = re.search(r"(\d+) passed", ran.out)
    assert passed is not None
    assert int(passed[1]) >= 10
    assert "failed" not in ran.out.splitlines()[-1]


_WORKERS = """
import transformers, time
args.dataloader_num_workers, args.save_steps = 2, 500
usual = Trainer._save_checkpoint
def slow(*given, **named):
    open("saving", "w").close()
    time.sleep(6)
    return usual(*given, **named)
Trainer._save_checkpoint = slow
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_accelerate_launch_with_one_process_is_told_to_end(number, tmp_path) -> None:
    """Its launcher dies of the signal and passes nothing on: the training saves all the same, within the grace."""
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "train.py")
    (tmp_path / "train.py").write_text(SCRIPT)
    more = {"BEFORE": _WORKERS, "FATE": "3 open('there', 'w')", "PACE": "0.5"}
    process = start(tmp_path, *launch, options=("--grace", "60"), **more)
    await_file(tmp_path / "there", process)
    process.send_signal(number)
    ran = finish(process, tmp_path)
    print(ran.err[-6000:])
    assert ran.code == (75 if number == signal.SIGTERM else 130)
    assert (tmp_path / "saving").exists()
    assert ran.lines("death")[0]["committed"] >= 3
    assert ran.actions == ["leave"]


@pytest.mark.slow
def test_accelerate_launch_is_killed_and_goes_on(tmp_path) -> None:
    """Two ranks under `accelerate launch`: one is killed, both are started again, bit-identical to a torchrun."""
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    ran = play(KINDS["SIGKILL"], 2, tmp_path / "killed", launcher=launch)
    print(ran.err[-6000:])
    assert KINDS["SIGKILL"].end == SAME
    check(KINDS["SIGKILL"], ran, plain(tmp_path / "reference", *torchrun(2), "train.py"))
    assert ran.notes(2, "train")[0]["world_size"] == 2
    assert ran.notes(2, "train")[0]["step"] >= 2, "it started anew instead of resuming"
    assert all(ran.notes(attempt, "hooked", rank) for attempt in (1, 2) for rank in (0, 1))
