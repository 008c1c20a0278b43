"""The README is true: each of its blocks is run, each of its tables compared with the code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from tests.readme import standins
from tests.readme.blocks import DEMO, README, RUN, Block, blocks, install_commands

ROOT = README.parent
TEXT = README.read_text()


def trains(block: Block) -> bool:
    """An example with a Trainer."""
    return ".train(" in block.text


def reads(block: Block) -> bool:
    """An example that reads a vault."""
    return "open_vault" in block.text


def loops(block: Block) -> bool:
    """A loop of one's own."""
    return "\nfor " in block.text and not reads(block)


def by_line(block: Block) -> str:
    """A test's name: the line of the README."""
    return f"line-{block.line}"


def table_after(heading: str) -> list[list[str]]:
    """Return the rows, without the header, of the first table behind a line that starts so."""
    lines = TEXT[TEXT.index(heading) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_every_block_is_of_a_kind_that_is_run() -> None:
    """No block of the README escapes: shell, Python and console are run below, others aren't there."""
    kinds = {block.language for block in blocks()}
    assert kinds == {"sh", "python", "console"}
    kinds_of_python = (trains, reads, loops)
    assert all(sum(kind(block) for kind in kinds_of_python) == 1 for block in blocks("python"))
    others = [block for block in blocks("sh") if block.text.strip() not in install_commands()]
    assert len(others) == 2, "a shell block that no test runs"


def _first_step_of_a_run(vault, namespace) -> int:
    """Train a run into a vault, and return the step of its first checkpoint there: what a fork begins from."""
    from vaultlayer_hf import Settings, Trainer, open_vault

    known = {name: namespace[name] for name in ("model", "args")}
    Trainer(**known, train_dataset=namespace["ds"], resume=Settings(vault=vault, keep_last=None)).train()
    with open_vault(vault) as opened:
        return opened.checkpoints()[0].step


@pytest.mark.filterwarnings("ignore")  # of the libraries; what the examples do is looked at below
@pytest.mark.parametrize("block", [item for item in blocks("python") if trains(item)], ids=by_line)
def test_python_example_trains_and_commits(block, s3_server, s3_env, tmp_path, monkeypatch) -> None:
    """The example, word for word but for the bucket, trains to its last step, and its vault holds that step."""
    import torch

    from vaultlayer_hf import open_vault

    if "trl" in block.text:
        pytest.importorskip("trl", reason="needs trl, which wants a newer transformers: pip install trl")
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    bucket = f"s3://{s3_server.bucket}/readme-{uuid.uuid4().hex[:8]}"
    code = block.text.replace("s3://bucket", bucket)
    vault = re.search(r'"(s3://[^"]+)"', code)[1]
    make = standins.sft if "trl" in block.text else standins.plain
    if "fork=" in code:
        origin, step = re.search(r'fork="(s3://[^"]+)@(\d+)"', code).groups()
        code = code.replace(f"@{step}", f"@{_first_step_of_a_run(origin, make(tmp_path))}")
        shutil.rmtree(tmp_path / "output")
    for _ in ("fresh", "again"):
        namespace = make(tmp_path)
        exec(compile(code, f"README.md:{block.line}", "exec"), namespace)
        with open_vault(vault) as opened:
            assert [commit.step for commit in opened.checkpoints()][-1] == standins.STEPS
            assert opened.state.finished == standins.STEPS
            tokens = {commit.token for commit in opened.checkpoints()}
        shutil.rmtree(tmp_path / "output")
    assert len(tokens) == 1, "the finished run was left as it was when the script was started again"


class Crash(Exception):
    """What ends a loop in the middle."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "block", [item for item in blocks("python") if loops(item) and "Checkpointer" in item.text], ids=by_line
)
def test_loop_example_goes_on_after_a_crash(block, s3_server, s3_env, tmp_path, monkeypatch) -> None:
    """The example, word for word but for the bucket, crashes and is started again: it ends as if it hadn't."""
    import torch

    from vaultlayer_hf import open_vault

    torch.set_num_threads(1)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    bucket = f"s3://{s3_server.bucket}/readme-{uuid.uuid4().hex[:8]}"
    vault = re.search(r'"s3://bucket([^"]+)"', block.text)[1]
    crash = 3 if "train_step" in block.text else 6
    ends = []
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
            exec(compile(code, f"README.md:{block.line}", "exec"), namespace)
        handle.remove()
        _forget_accelerate()
        if crash_at:
            _close(namespace)
        else:
            ends.append(namespace["model"].state_dict())
        with open_vault(f"{bucket}-{name}{vault}") as opened:
            assert bool(opened.state.finished) == (not crash_at)
            assert opened.checkpoints()
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


@pytest.mark.filterwarnings("ignore")
def test_loop_of_the_guides_ends_alike(s3_server, s3_env, tmp_path, monkeypatch) -> None:
    """The loop that guides show and the one with a vault beside it train the same model."""
    import torch

    torch.set_num_threads(1)
    monkeypatch.setattr("__main__.__file__", str(tmp_path / "train.py"), raising=False)
    monkeypatch.chdir(tmp_path)
    guide, ours = [item for item in blocks("python") if loops(item)][:2]
    ends = []
    for block in (guide, ours):
        code = block.text.replace("s3://bucket", f"s3://{s3_server.bucket}/readme-{uuid.uuid4().hex[:8]}")
        namespace = standins.loop(tmp_path)
        exec(compile(code.replace("200", "2"), f"README.md:{block.line}", "exec"), namespace)
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
    first, reads = blocks("python")[0], next(item for item in blocks("python") if "open_vault" in item.text)
    monkeypatch.chdir(tmp_path)
    bucket = f"s3://{s3_server.bucket}/readme-{uuid.uuid4().hex[:8]}"
    exec(compile(first.text.replace("s3://bucket", bucket), "first", "exec"), standins.plain(tmp_path))
    capsys.readouterr()
    exec(compile(reads.text.replace("s3://bucket", bucket), "reads", "exec"), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed[-1][0] == str(standins.STEPS)
    assert all(row[-1] == "True" for row in printed)


def test_shell_example_reaches_the_server(s3_server, no_aws, tmp_path) -> None:
    """The lines for a server of one's own lead `vl ls` to it, with nothing else set."""
    block = next(block for block in blocks("sh") if "AWS_ENDPOINT_URL" in block.text)
    code = (
        block.text.replace("http://127.0.0.1:8333", s3_server.endpoint)
        .replace("my-key", s3_server.access_key)
        .replace("my-secret", s3_server.secret_key)
        .replace("s3://bucket", f"s3://{s3_server.bucket}")
    )
    done = subprocess.run(
        ["bash", "-euc", code], capture_output=True, text=True, timeout=60, env=shell(tmp_path)
    )
    assert done.returncode == 1, done.stderr  # the server has answered: nothing is there yet
    assert "there is no vault" in done.stderr


def test_lifecycle_rule_is_one_that_a_server_takes(s3_server, s3_env) -> None:
    """The rule of the command for what killed uploads leave is accepted, and read back as it is."""
    import botocore.session
    from botocore.config import Config

    block = next(block for block in blocks("sh") if block.text.startswith("aws "))
    words = shlex.split(block.text)
    operation, rules = words[2], json.loads(words[words.index("--lifecycle-configuration") + 1])
    client = botocore.session.Session().create_client(
        "s3", endpoint_url=s3_server.endpoint, config=Config(s3={"addressing_style": "path"})
    )
    where = {"Bucket": s3_server.bucket}
    getattr(client, operation.replace("-", "_"))(**where, LifecycleConfiguration=rules)
    try:
        assert client.get_bucket_lifecycle_configuration(**where)["Rules"] == rules["Rules"]
    finally:
        client.delete_bucket_lifecycle(**where)
        client.close()


@pytest.mark.parametrize(
    "block", [item for item in blocks("console") if not item.text.startswith((DEMO, RUN))], ids=by_line
)
def test_console_example_prints_what_it_shows(block, trained) -> None:
    """The output that the README shows is what the command prints, but for times and sizes."""
    with tempfile.TemporaryDirectory(
        prefix="vl-"
    ) as folder:  # a short path: a long one folds lines elsewhere
        _prints_what_it_shows(block, trained, Path(folder))


def _prints_what_it_shows(block, trained, tmp_path) -> None:
    shutil.copytree(trained, tmp_path / "runs" / "llama")
    shutil.copy(ROOT / "tests" / "run" / "insert" / "scripts" / "step_loop.py", tmp_path / "train.py")
    command, _, shown = block.text.partition("\n")
    assert command.startswith("$ vl ")
    done = subprocess.run(
        ["bash", "-euc", command[2:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env=shell(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert same_for_all(done.stdout) == same_for_all(shown)


def shell(folder: Path) -> dict[str, str]:
    """Return an environment in which `vl` is on PATH, whether or not the package is installed."""
    script = folder / "bin" / "vl"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vaultlayer_hf.cli "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def same_for_all(text: str) -> str:
    """Take out what differs from run to run: times, sizes, digests, versions, losses, and the spaces that they need."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"\d+(\.\d+)? (s|ms|min|h|days)\b", "SPAN", text)
    text = re.sub(r"(ahead of|behind) this machine", "OFF this machine", text)
    text = re.sub(r"(ok +disk:) \S+", r"\1 FOLDER", text)
    text = re.sub(r"\d+\.\d%", "SHARE", text)
    text = re.sub(r"[0-9a-f]{12}…", "DIGEST", text)
    text = re.sub(r"file:///\S+", "URI", text)
    text = re.sub(r"(claimed the vault on|token 1, on) \S+", r"\1 HOST", text)
    text = re.sub(r"\d+\.\d+\.\d+[\w.+]*", "VERSION", text)
    text = re.sub(r"(packaging) [\d.]+", r"\1 VERSION", text)
    text = re.sub(r"\d+\.\d{4} \(step", "LOSS (step", text)
    text = re.sub(r"\d+(\.\d+)? [kMGT]?B\b", "SIZE", text)
    return "\n".join(re.sub(r" +", " ", line).strip() for line in text.strip().splitlines())


def test_settings_table_is_complete_and_right(monkeypatch) -> None:
    """Each option is in the table with its variable and the default that the code has."""
    from vaultlayer_hf import Settings
    from vaultlayer_hf.session.settings import settings_table

    for name in list(os.environ):
        if name.startswith("VAULTLAYER_"):
            monkeypatch.delenv(name)
    rows = {row[0].strip("`"): row[1].strip("`") for row in table_after("### Settings")}
    defaults = Settings()
    expected = {}
    for variable, field in settings_table():
        value = getattr(defaults, field)
        expected[variable] = (
            "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        )
    for name in ("VAULTLAYER_KEEP_BEST", "VAULTLAYER_LOG_FIGURES"):
        expected[name] = expected[name].lower()
    assert rows == expected


def test_exit_codes_are_those_of_the_code() -> None:
    """The table of exit codes is what `vl` ends with."""
    from vaultlayer_hf.cli.common import EXIT_CODES

    rows = {int(row[0]): row[1] for row in table_after("| exit code |")}
    assert rows == {int(code): meaning for code, meaning in EXIT_CODES.items()}


def test_exit_codes_of_a_training_are_those_of_the_code() -> None:
    """The table of how a training ends that was told to stop names the codes that it ends with."""
    from vaultlayer_hf.session.stop.exits import INTERRUPTED, PREEMPTED

    assert [int(row[0]) for row in table_after("| exit code of a training |")] == [PREEMPTED, INTERRUPTED]


def test_ci_runs_the_second_command() -> None:
    """CI takes its test command from the README, so the two can't part."""
    assert len(install_commands()) == 2
    pattern = re.search(r"grep -m1 '(\^[^']+)' README.md", (ROOT / ".ci" / "run").read_text())[1]
    assert re.findall(pattern + r".*", TEXT, re.MULTILINE) == [install_commands()[1]]


def test_links_lead_somewhere() -> None:
    """Each relative link of the README names a file that is there."""
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_first_command_works_from_nothing(tmp_path) -> None:
    """The first command, word for word, on a copy of the sources and with a Python that has nothing else."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in tracked.decode().split("\0")[:-1]:
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    kept = {"PATH", "HOME", "LANG", "TMPDIR"}
    environment = {
        name: value for name, value in os.environ.items() if name in kept or name.startswith(("PIP_", "SSL_"))
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", install_commands()[0]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "bit-identical" in done.stdout
    assert (tmp_path / ".venv" / "bin" / "vl").exists()
