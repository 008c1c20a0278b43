"""The examples in Python are true: each is run, word for word but for the bucket."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.readme import standins
from tests.readme.blocks import Block, of_kind


def place(block: Block) -> str:
    """A test's name: the file and the line."""
    return block.place


def _first_step_of_a_run(vault, namespace) -> int:
    """Train a run into a vault, and return the step of its first checkpoint there: what a fork begins from."""
    from vaultlayer_hf import Settings, Trainer, open_vault

    known = {name: namespace[name] for name in ("model", "args")}
    Trainer(**known, train_dataset=namespace["ds"], resume=Settings(vault=vault, keep_last=None)).train()
    with open_vault(vault) as opened:
        return opened.checkpoints()[0].step


_VAULT = re.compile(r'(?:resume=|vault=|vault = |Callback\()"([^"]+)"')
_FOLDERS = ("/content", "/kaggle")
"""Of notebooks' machines; here they lie below the test's own."""


@pytest.fixture
def notebooks(tmp_path, s3_env, monkeypatch) -> Callable[[str], str]:
    """Stand-ins for what a notebook's machine has: its modules, and its folders, which are put into an example."""
    keys = SimpleNamespace(get=os.environ.__getitem__, get_secret=os.environ.__getitem__)
    colab = ModuleType("google.colab")
    colab.drive = SimpleNamespace(
        mount=lambda folder: Path(folder, "MyDrive").mkdir(parents=True, exist_ok=True)
    )
    colab.userdata = keys
    kaggle = ModuleType("kaggle_secrets")
    kaggle.UserSecretsClient = lambda: keys
    modules = {"google.colab": colab, "kaggle_secrets": kaggle}

    def here(code: str) -> str:
        import vaultlayer_hf

        assert vaultlayer_hf.Trainer  # libraries look at such names as they are imported
        for name in (name for name in modules if f"from {name}" in code):
            monkeypatch.setitem(sys.modules, name, modules[name])
        for folder in _FOLDERS:
            code = code.replace(f'"{folder}/', f'"{tmp_path}{folder}/')
        return code

    return here


@pytest.mark.filterwarnings("ignore")  # of the libraries; what the examples do is looked at below
@pytest.mark.parametrize("block", of_kind("python:trains"), ids=place)
def test_python_example_trains_and_commits(block, notebooks, s3_server, tmp_path, monkeypatch) -> None:
    """The example, word for word but for bucket and folders, trains to its last step, and its vault holds that step."""
    import torch

    from vaultlayer_hf import open_vault

    if "trl" in block.text:
        pytest.importorskip("trl", reason="needs trl, which wants a newer transformers: pip install trl")
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    bucket = f"s3://{s3_server.bucket}/readme-{uuid.uuid4().hex[:8]}"
    code = notebooks(block.text.replace("s3://bucket", bucket))
    code = code.replace("max_steps=5000, save_steps=250", f"max_steps={standins.STEPS}, save_steps=2")
    vault = _VAULT.search(code)[1]
    make = standins.sft if "trl" in block.text else standins.plain
    if 'fork="' in code:
        origin, step = re.search(r'fork="(s3://[^"]+)@(\d+)"', code).groups()
        code = code.replace(f"@{step}", f"@{_first_step_of_a_run(origin, make(tmp_path))}")
        shutil.rmtree(tmp_path / "output")
    end = standins.STEPS
    # The rest is as in other examples.
    once = block.file.parent.name == "notebooks" and "/kaggle/input" not in code
    for _ in ("fresh",) if once else ("fresh", "again"):
        namespace = make(tmp_path)
        namespace["args"].max_steps = end
        exec(compile(code, block.place, "exec"), namespace)
        with open_vault(vault) as opened:
            assert [commit.step for commit in opened.checkpoints()][-1] == end
            assert opened.state.finished == end
            tokens = {commit.token for commit in opened.checkpoints()}
        shutil.rmtree(tmp_path / "output")
        # The next version of the notebook goes further: its input is this one's output.
        if "/kaggle/input" in code:
            end += 2
            shutil.move(
                tmp_path / "kaggle" / "working" / "vault",
                tmp_path / "kaggle" / "input" / "notebooks" / "me" / "my-notebook" / "vault",
            )
    assert len(tokens) == 1, "the finished run was left as it was when the script was started again"


class Crash(Exception):
    """What ends a loop in the middle."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", of_kind("python:loop"), ids=place)
def test_loop_example_goes_on_after_a_crash(block, s3_server, s3_env, tmp_path, monkeypatch) -> None:
    """The example, word for word but for the bucket, crashes and is started again: it ends as if it hadn't."""
    import torch

    from vaultlayer_hf import open_vault

    torch.set_num_threads(1)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    bucket = f"s3://{s3_server.bucket}/readme-{uuid.uuid4().hex[:8]}"
    vault = re.search(r'"s3://bucket([^"]+)"', block.text)[1]
    crash = 3 if "train_step" in block.text else 6
    ends, kept = [], []
    for name, crash_at in (("whole", None), ("part", crash), ("part", None)):
        folder = tmp_path / f"{name}-{crash_at}"  # another disk each time
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setattr("__main__.__file__", str(folder / "train.py"), raising=False)
        code = block.text.replace("s3://bucket", f"{bucket}-{name}")
        code = code.replace("200 steps", "1 step").replace("5min", "2 steps")
        namespace = standins.loop(tmp_path)
        handle = _crash_at_step(crash_at, namespace["optimizer"])
        with pytest.raises(Crash) if crash_at else contextlib.nullcontext():
            exec(compile(code, block.place, "exec"), namespace)
        handle.remove()
        _forget_accelerate()
        if crash_at:
            _close(namespace)
        else:
            ends.append(namespace["model"].state_dict())
            kept.append(namespace.get("means"))
        with open_vault(f"{bucket}-{name}{vault}") as opened:
            assert bool(opened.state.finished) == (not crash_at)
            assert opened.checkpoints()
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    assert kept[0] == kept[1], "what the loop has carried"


@pytest.mark.filterwarnings("ignore")
def test_loop_of_the_guides_ends_alike(s3_server, s3_env, tmp_path, monkeypatch) -> None:
    """The loop that guides show and the one with a vault beside it train the same model."""
    import torch

    torch.set_num_threads(1)
    monkeypatch.setattr("__main__.__file__", str(tmp_path / "train.py"), raising=False)
    monkeypatch.chdir(tmp_path)
    (guide,), ours = of_kind("python:stock-loop"), of_kind("python:loop")[0]
    ends = []
    for block in (guide, ours):
        code = block.text.replace("s3://bucket", f"s3://{s3_server.bucket}/readme-{uuid.uuid4().hex[:8]}")
        namespace = standins.loop(tmp_path)
        exec(compile(code.replace("200", "2"), block.place, "exec"), namespace)
        ends.append(namespace["model"].state_dict())
    assert (tmp_path / "last.pt").exists()
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


def _crash_at_step(step: int | None, optimizer):
    done = 0

    def count(*_) -> None:
        nonlocal done
        done += 1
        if done == step:
            raise Crash

    return optimizer.register_step_post_hook(count)


def _forget_accelerate() -> None:
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def _close(namespace) -> None:
    """End the uploads of a crashed example, as the end of its process would."""
    for value in list(namespace.values()):
        if type(value).__name__ == "Checkpointer":
            value.close()
        attached = getattr(getattr(value, "save_state", None), "__self__", None)
        if type(attached).__name__ == "AttachedScript":
            attached.training.close()


@pytest.mark.filterwarnings("ignore")
def test_python_example_reads_a_vault(s3_server, s3_env, tmp_path, monkeypatch, capsys) -> None:
    """The example that reads prints, and finds whole, each checkpoint that the first example's run committed."""
    first, (reads,) = of_kind("python:trains")[0], of_kind("python:reads")
    monkeypatch.chdir(tmp_path)
    bucket = f"s3://{s3_server.bucket}/readme-{uuid.uuid4().hex[:8]}"
    exec(compile(first.text.replace("s3://bucket", bucket), "first", "exec"), standins.plain(tmp_path))
    capsys.readouterr()
    exec(compile(reads.text.replace("s3://bucket", bucket), "reads", "exec"), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed[-1][0] == str(standins.STEPS)
    assert all(row[-1] == "True" for row in printed)
    (pulls,) = of_kind("python:pulls")
    namespace: dict[str, Any] = {}
    exec(compile(pulls.text.replace("s3://bucket", bucket), "pulls", "exec"), namespace)
    assert namespace["model"].config.model_type == "llama"
