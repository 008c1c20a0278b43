"""The commands are true: each is run, and prints what its text shows."""

from __future__ import annotations

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

from tests import ROOT
from tests.readme.blocks import README, Block, of_kind
from tests.servers import free_ports


def place(block: Block) -> str:
    """A test's name: the file and the line."""
    return block.place


def test_shell_example_reaches_the_server(s3_server, no_aws, tmp_path) -> None:
    """The lines for a server of one's own lead `vl ls` to it, with nothing else set."""
    (block,) = of_kind("sh:server")
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

    (block,) = of_kind("sh:lifecycle")
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


@pytest.mark.slow
@pytest.mark.parametrize("block", of_kind("sh:script"), ids=place)
def test_script_runs(block, s3_server, s3_env, tmp_path) -> None:
    """A script for a machine or a scheduler, word for word but for bucket and folders, runs the program to its end."""
    folder = tmp_path / "opt" / "training"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("import os\nopen('vault', 'w').write(os.environ['VAULTLAYER_VAULT'])\n")
    code = block.text.replace("s3://bucket", f"s3://{s3_server.bucket}/{uuid.uuid4().hex[:8]}")
    for name in ("/opt/", "/shared/"):
        code = code.replace(name, f"{tmp_path}{name}")
    environment = shell(tmp_path)
    _program(tmp_path / "bin" / "python", f'exec "{sys.executable}" "$@"')
    _program(tmp_path / "bin" / "shutdown", f'echo "$@" > "{tmp_path}/shutdown"')
    done = subprocess.run(
        ["bash", "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "vault").read_text().removeprefix("file://") in code
    assert (tmp_path / "shutdown").exists() == ("shutdown" in code)


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


RANKS = """
import torch
from accelerate import Accelerator
from vaultlayer_hf import Checkpointer

accelerator = Accelerator()
model = torch.nn.Linear(2, 2)
data = torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=2)
model, optimizer, data = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), data)
ckpt = Checkpointer("vault", accelerator=accelerator, output_dir="out")
ckpt.resume()
for _, batch in ckpt.steps(data, epochs=2):
    accelerator.backward(model(batch).sum())
    optimizer.step()
    optimizer.zero_grad()
    ckpt.step()
ckpt.finish()
print(f"rank {accelerator.process_index} of {accelerator.num_processes}")
"""


@pytest.mark.slow
def test_commands_for_ranks_without_a_gpu_start_two(tmp_path) -> None:
    """Each of them trains one run of two ranks, and `accelerate launch --cpu` starts one process, as is said."""
    (block,) = of_kind("sh:ranks")
    settings, *commands = block.text.splitlines()
    (tmp_path / "train.py").write_text(RANKS)
    environment = shell(tmp_path)
    _program(tmp_path / "bin" / "torchrun", f'exec "{sys.executable}" -m torch.distributed.run "$@"')
    _program(
        tmp_path / "bin" / "accelerate", f'shift; exec "{sys.executable}" -m accelerate.commands.launch "$@"'
    )
    alone = "accelerate launch --cpu --num_processes 2 train.py"
    environment |= {"HF_HOME": str(tmp_path / "hf"), "PET_MASTER_PORT": str(free_ports(1)[0])}
    for command, ranks in (*((line, 2) for line in commands), (alone, 1)):
        shutil.rmtree(tmp_path / "vault", ignore_errors=True)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        done = subprocess.run(
            ["bash", "-euc", f"{settings}\n{command}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        said = sorted(re.findall(r"rank \d of \d", done.stdout))  # of two that write at once
        assert said == [f"rank {rank} of {ranks}" for rank in range(ranks)], command


@pytest.mark.slow
def test_wheel_has_the_name_that_is_told(tmp_path) -> None:
    """The command that makes a wheel, in a copy of the checkout, makes the one that README names."""
    (block,) = of_kind("sh:wheel")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.split("\n"):
        if name.startswith("vaultlayer_hf/") or (name and "/" not in name):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    _program(tmp_path / ".venv" / "bin" / "pip", f'exec "{sys.executable}" -m pip "$@"')
    subprocess.run(["bash", "-euc", block.text], cwd=tmp_path, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    for text in (README, ROOT / "notebooks" / "README.md", *(ROOT / "notebooks").glob("*.ipynb")):
        assert wheel.name in text.read_text()


def test_vaults_commands_work(trained, tmp_path) -> None:
    """What is shown for moving a vault, and for taking out what is kept and removing the rest, does that."""
    shutil.copytree(trained, tmp_path / "runs" / "llama")
    for block in of_kind("sh:vault"):
        done = subprocess.run(
            ["bash", "-euc", block.text],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env=shell(tmp_path),
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "moved" / "log").is_dir()
    assert (tmp_path / "kept" / "model.safetensors").exists()
    assert not (tmp_path / "runs" / "llama").exists()


@pytest.mark.slow
def test_job_is_what_the_hub_takes(tmp_path) -> None:
    """The command for a job is understood by the Hub's command line, up to its submission."""
    (block,) = of_kind("sh:hf-jobs")
    hf = Path(sys.executable).with_name("hf")
    if not hf.exists() or b"--dry-run" not in _hub(hf, ["jobs", "run", "--help"]).stdout:
        pytest.skip("needs a huggingface_hub whose jobs have --dry-run: pip install -U huggingface_hub")
    words = shlex.split(block.text.replace("\\\n", ""))
    done = _hub(hf, [*words[1:3], "--dry-run", *words[3:]])
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.decode().splitlines()]
    assert ["command", "vl", "run", "python", "train.py"] in said
    assert ["attempts", "5"] in said


def _hub(hf: Path, words: list[str]) -> subprocess.CompletedProcess[bytes]:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "COLUMNS": "100"}
    return subprocess.run([hf, *words], capture_output=True, timeout=60, env={**os.environ, **keys})


@pytest.mark.parametrize("block", of_kind("console:command"), ids=place)
def test_console_example_prints_what_it_shows(block, trained) -> None:
    """The output that the README shows is what the command prints, but for times and sizes."""
    # A short path: a long one folds lines elsewhere.
    with tempfile.TemporaryDirectory(prefix="vl-") as folder:
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
    _program(script, f'exec "{sys.executable}" -m vaultlayer_hf.cli "$@"')
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def same_for_all(text: str) -> str:
    """Take out what differs from run to run: times, sizes, digests, versions, losses, and the spaces that they need."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"\d+(\.\d+)? (s|ms|min|h|days)\b", "SPAN", text)
    text = re.sub(r"(ahead of|behind) this machine", "OFF this machine", text)
    text = re.sub(r"(ok +disk:) \S+", r"\1 FOLDER", text)
    text = re.sub(r"(lie on one disk, that of) \S+:", r"\1 FOLDER:", text)
    text = re.sub(r"\d+\.\d%", "SHARE", text)
    text = re.sub(r"[0-9a-f]{12}…", "DIGEST", text)
    text = re.sub(r"file:///\S+", "URI", text)
    text = re.sub(r"(claimed the vault on|token 1, on) \S+", r"\1 HOST", text)
    text = re.sub(r"\d+\.\d+\.\d+[\w.+]*", "VERSION", text)
    text = re.sub(r"(packaging) [\d.]+", r"\1 VERSION", text)
    text = re.sub(r"\d+\.\d{4} \(step", "LOSS (step", text)
    text = re.sub(r"(committed|newest) +\d\.\d+$", r"\1 LOSS", text, flags=re.MULTILINE)
    text = re.sub(r"\d+(\.\d+)? [kMGT]?B\b", "SIZE", text)
    return "\n".join(re.sub(r" +", " ", line).strip() for line in text.strip().splitlines())
