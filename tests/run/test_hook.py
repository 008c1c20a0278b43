"""The import hook: where it reaches, what it leaves alone, and that a process without a Trainer doesn't pay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run.programs import environment
from vaultlayer_hf.run.engines.reach import STARTUP, Lookout, why_unreached

MODULES = "import sys, json; print(json.dumps(sorted(sys.modules)))"


def python(code: str, *options: str, path: tuple[Path, ...] = (), **more: str) -> str:
    """Run code in a Python that has the hook first on PYTHONPATH; return what it prints."""
    given = environment(**more)
    given["PYTHONPATH"] = os.pathsep.join([str(STARTUP), *map(str, path), given["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, *options, "-c", code], env=given, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_without_a_trainer_imports_nothing_more(tmp_path) -> None:
    """The hook imports no module that Python hasn't imported already, but itself, and writes nothing."""
    (tmp_path / "attempt").mkdir()
    with_hook = set(json.loads(python(MODULES, VAULTLAYER_RUN_ATTEMPT=str(tmp_path / "attempt"))))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "sitecustomize.py").write_text("")
    given = environment(PYTHONPATH=str(tmp_path / "empty"))
    done = subprocess.run(
        [sys.executable, "-c", MODULES], env=given, capture_output=True, text=True, check=True
    )
    assert with_hook - set(json.loads(done.stdout)) == set()
    assert list((tmp_path / "attempt").iterdir()) == []


def test_another_sitecustomize_runs_too(tmp_path) -> None:
    """The one that the hook hides is run, and is what `import sitecustomize` gives."""
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.been_here = __file__\n")
    code = "import sitecustomize; print(been_here, sitecustomize.__file__)"
    out = python(code, path=(tmp_path,), VAULTLAYER_RUN_ATTEMPT=str(tmp_path))
    assert out.split() == [str(tmp_path / "sitecustomize.py")] * 2


def test_the_hook_finds_the_trainer_in_every_way_to_import_it(tmp_path) -> None:
    """Whether by name from transformers or from its module, and in a child process: it is the changed class."""
    (tmp_path / "train.py").write_text(
        "import inspect, subprocess, sys, transformers\n"
        "from transformers import Seq2SeqTrainer, Trainer\n"
        "assert Trainer is transformers.trainer.Trainer\n"
        "assert '_vaultlayer_run' in Trainer.__dict__\n"
        "assert issubclass(Seq2SeqTrainer, Trainer)\n"
        "assert 'compute_loss_func' in inspect.signature(Trainer).parameters\n"
        "if not sys.argv[1:]:\n    subprocess.run([sys.executable, sys.argv[0], 'child'], check=True)\n"
    )
    (tmp_path / "attempt").mkdir()
    code = f"import runpy, sys; sys.argv = [{str(tmp_path / 'train.py')!r}]; runpy.run_path(sys.argv[0])"
    python(code, VAULTLAYER_RUN_ATTEMPT=str(tmp_path / "attempt"))
    notes = [json.loads(line) for line in (tmp_path / "attempt" / "rank-0.jsonl").read_text().splitlines()]
    assert [note["kind"] for note in notes] == ["hooked", "hooked"]
    assert len({note["pid"] for note in notes}) == 2


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (["python", "-I", "train.py"], "-I"),
        (["/usr/bin/python3.11", "-u", "-S", "-m", "train"], "-S"),
        (["python", "-W", "error", "-uE", "train.py"], "-E"),
        (["python", "train.py", "-I"], ""),
        (["python", "-m", "train", "-S"], ""),
        (["python", "-c", "print()", "-E"], ""),
        (["torchrun", "-I", "train.py"], ""),
        (["python", "-Wignore::E", "train.py"], ""),
    ],
    ids=" ".join,
)
def test_options_that_keep_the_hook_out_are_known(command, flag) -> None:
    """Python's own options count, and nothing behind the script's name does."""
    reason = why_unreached(command)
    assert (flag in reason and bool(reason)) if flag else not reason


def test_a_process_that_lost_its_environment_is_told_from_one_that_has_it() -> None:
    """A child that was started with an environment of its own is noticed by what it lacks."""
    good = {"VAULTLAYER_RUN_ATTEMPT": "/x", "PYTHONPATH": f"/y:{STARTUP}"}
    assert not why_unreached(["python", "train.py"], good)
    assert "environment of its own" in why_unreached(["python", "train.py"], {})
    assert "has lost" in why_unreached(["python", "train.py"], {**good, "PYTHONPATH": "/y"})
    assert not why_unreached(["bash", "train.sh"], {})


def test_only_what_uses_torch_is_said(tmp_path) -> None:
    """An unreached helper that never loads torch is nobody's concern; one that does is named, once."""
    import psutil

    code = "import sys, time\nif len(sys.argv) > 1: import torch\nprint('up', flush=True); time.sleep(60)"
    lookout = Lookout()
    started = [
        subprocess.Popen([sys.executable, "-I", "-c", code, *more], stdout=subprocess.PIPE, text=True)
        for more in ([], ["torch"])
    ]
    try:
        for one in started:
            assert one.stdout.readline() == "up\n"
        found = [lookout.look([psutil.Process(one.pid) for one in started]) for _ in range(3)]
    finally:
        for one in started:
            one.kill()
            one.communicate()
    said = [sentence for sentences in found for sentence in sentences]
    assert len(said) == 1
    assert str(started[1].pid) in said[0]
    assert "-I" in said[0]
