"""What is asked for and what is handed in: options that mean the same everywhere, or are refused before submission."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import vl
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import EngineError, Gpus, Job, JobRequest, engine_errors, parse_gpus
from vaultlayer_hf.run.engines.jobs.command import Here, program
from vaultlayer_hf.run.engines.jobs.record import read_jobs, write_job
from vaultlayer_hf.run.engines.jobs.slurm import Slurm, describe, parse_job
from vaultlayer_hf.run.engines.jobs.table import NAMES, engine, parse_engines

REQUEST = JobRequest(
    ["python", "train.py", "--lr", "1 e"],
    "s3://b/x",
    "vl-train",
    Path("/data/me"),
    Path("/data/me/.vl"),
    "vaultlayer_hf.cli",
)
HERE = Here("$NODE", "$HEAD", "29400", "$JOB", "python")


@pytest.mark.parametrize(
    ("text", "gpus"), [("8", Gpus(8)), ("A100", Gpus(1, "A100")), ("H100-80GB:4", Gpus(4, "H100-80GB"))]
)
def test_gpus(text: str, gpus: Gpus) -> None:
    """A number, a kind, or both."""
    assert parse_gpus(text) == gpus


@pytest.mark.parametrize("text", ["", "8:A100", "-1", "A100:"])
def test_gpus_that_are_none(text: str) -> None:
    """Anything else is a usage error that shows what is meant."""
    with pytest.raises(SettingsError, match="A100:8"):
        parse_gpus(text)


def test_one_rank_is_started_as_it_is() -> None:
    """On one node without GPUs the command stays what it is, quoted for the shell."""
    assert program(REQUEST, HERE) == ["python", "train.py", "--lr", "'1 e'"]


def test_several_gpus_are_several_ranks() -> None:
    """A Python script on a node with GPUs gets a rank for each."""
    words = program(replace(REQUEST, gpus=Gpus(4)), HERE)
    assert words[:5] == ["python", "-m", "torch.distributed.run", "--nproc-per-node=4", "--standalone"]
    assert words[5:] == ["train.py", "--lr", "'1 e'"]


@pytest.mark.parametrize(
    "command", [["python", "-m", "pack", "x"], ["torchrun", "--nproc-per-node", "1", "-m", "pack", "x"]]
)
def test_several_nodes_find_each_other(command: list[str]) -> None:
    """On several nodes torchrun gets the number of nodes and the rendezvous, whoever has named it."""
    words = program(replace(REQUEST, command=command, nodes=3), HERE)
    assert words[:3] == ["python", "-m", "torch.distributed.run"]
    assert {"--nnodes=3", '--rdzv-endpoint="$HEAD:29400"', '--rdzv-id="$JOB"'} <= set(words)
    assert '--rdzv-conf="is_host=$(($NODE == 0))"' in words, "not guessed from the host's name"
    assert words[-3:] == ["-m", "pack", "x"]
    assert sum(word.startswith("--nproc") for word in words) == 1


def test_a_rendezvous_of_ones_own_is_kept() -> None:
    """Who has told torchrun where the nodes meet isn't told otherwise."""
    command = ["torchrun", "--nnodes=2", "--rdzv-endpoint=x:1", "train.py"]
    assert program(replace(REQUEST, command=command, nodes=2), HERE) == command


def test_another_launcher_on_several_nodes_is_refused() -> None:
    """A launcher that can't be told where the other nodes are is refused, not started on each node alone."""
    with pytest.raises(SettingsError, match="torchrun"):
        program(replace(REQUEST, command=["accelerate", "launch", "train.py"], nodes=2), HERE)


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_batch_script_is_one(nodes: int) -> None:
    """Slurm's script parses as bash, asks for what was asked for, and gets the signal ahead of the end itself."""
    request = replace(
        REQUEST, nodes=nodes, gpus=Gpus(2, "A100"), queue="long", time_limit=5400.0, more={"account": "me"}
    )
    text = Slurm().manifest(request)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=20)
    options = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    asked = {
        "--requeue",
        f"--nodes={nodes}",
        "--gpus-per-node=A100:2",
        "--partition=long",
        "--time=90:0",
        "--account=me",
    }
    assert asked <= {option.replace(":00", ":0") for option in options}
    assert "--signal=B:TERM@300" in options
    assert text.index("#SBATCH --requeue") < text.index("export")


def test_all_that_cannot_be_is_said_at_once() -> None:
    """A job that an engine can't take is refused before submission, with every reason."""
    with pytest.raises(SettingsError) as refused:
        Slurm().refuse(replace(REQUEST, spot=True, time_limit=100.0))
    assert "--queue" in str(refused.value)
    assert "longer than the grace" in str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_takes_the_least(name: str) -> None:
    """A job that asks for nothing but nodes is refused by none for what it asks; some want options of their own."""
    needs = {"k8s": {"image": "me/train"}}.get(name, {})
    engine(name).refuse(replace(REQUEST, more=needs))


def test_names_of_engines() -> None:
    """A list is tried in order, each once; any stands for all but this machine."""
    assert parse_engines("slurm, local") == ["slurm", "local"]
    assert parse_engines("any") == list(NAMES)
    with pytest.raises(SettingsError, match="there is no engine lsf"):
        parse_engines("slurm,lsf")


def test_states_of_slurm() -> None:
    """What scontrol prints is understood: running, waiting for another start, ended."""
    line = "JobId=7 JobName=x JobState={} Reason={} Restarts=1 ExitCode=5:0 NodeList={} Command=(null)"
    running = describe(parse_job(line.format("RUNNING", "None", "n[1-2]")))
    assert (running.state, running.nodes, running.restarts) == ("running", "n[1-2]", 1)
    assert describe(parse_job(line.format("PENDING", "BeginTime", "(null)"))).detail == "PENDING (BeginTime)"
    assert describe(parse_job(line.format("FAILED", "NonZeroExitCode", "n1"))).state == "stopped"


def test_jobs_are_noted(tmp_path: Path) -> None:
    """What was handed in is found again, in order; a line that was cut short is passed over."""
    jobs = [Job("slurm", str(number), "vl-x", "s3://b/x", log="/x.out", time=1.0) for number in (7, 8)]
    for job in jobs:
        write_job(tmp_path, job)
    with open(tmp_path / "jobs.jsonl", "a") as file:
        file.write('{"kind": "job", "engi')
    assert read_jobs(tmp_path) == jobs
    assert str(jobs[1]) == "slurm:8"


def test_options_for_elsewhere_alone_are_refused(tmp_path: Path) -> None:
    """--nodes without --on is a usage error, not a run on this machine."""
    (tmp_path / "train.py").write_text("")
    done = vl("run", "--nodes", "2", "--", "python", "train.py", cwd=tmp_path)
    assert (done.code, "--on" in done.err) == (2, True)


def test_the_next_engine_is_tried(tmp_path: Path) -> None:
    """An engine that isn't there is said, and the next of the list is taken; nothing is handed in by --dry-run."""
    (tmp_path / "train.py").write_text("")
    command = [
        "run",
        "--spot",
        "--vault",
        "s3://b/x",
        "--dry-run",
        "--on",
        "slurm,local",
        "--",
        "python",
        "train.py",
    ]
    done = vl(*command, cwd=tmp_path)
    assert done.code == 0
    assert "slurm:" in done.err
    assert "it would run here" in done.err
    assert not (tmp_path / ".vl").exists()


def test_an_engines_own_errors() -> None:
    """What an engine's library raises is one error of ours, on one line; ours, and what isn't the engine's, stay."""
    with pytest.raises(EngineError) as raised, engine_errors("Ray can't be asked"):
        raise ConnectionError("no route\n  to host")
    assert str(raised.value) == "Ray can't be asked: no route to host"
    assert isinstance(raised.value.__cause__, ConnectionError)
    with pytest.raises(SettingsError, match="ours"), engine_errors("Ray can't be asked"):
        raise SettingsError("ours")
    with pytest.raises(KeyError), engine_errors(lambda error: None):
        raise KeyError("a bug")


def test_nothing_to_stop(tmp_path: Path) -> None:
    """Without a job or a live run `vl stop` says how one is named."""
    done = vl("stop", cwd=tmp_path)
    assert done.code == 1
    assert "vl run" in done.err


def test_settings_go_along_and_keys_do_not(tmp_path: Path) -> None:
    """Options of this environment reach nodes that have an environment of their own; credentials stay here."""
    (tmp_path / "train.py").write_text("")
    variables = {
        "VAULTLAYER_KEEP_LAST": "7",
        "AWS_SECRET_ACCESS_KEY": "hush-7",
        "VAULTLAYER_SIGNING_KEY": "hush-8",
    }
    command = ["run", "--vault", "s3://b/x", "--dry-run", "--on", "ray", "--", "python", "train.py"]
    done = vl(*command, cwd=tmp_path, **variables)
    assert (done.code, "hush" in done.out + done.err) == (0, False), done.err
    assert json.loads(done.out)["runtime_env"]["env_vars"]["VAULTLAYER_KEEP_LAST"] == "7"
