"""What is asked for and what is handed in: options that mean the same everywhere, or are refused before submission."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import vl
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs import ray
from vaultlayer_hf.run.engines.jobs.base import (
    EngineError,
    Gpus,
    Job,
    JobRequest,
    JobState,
    engine_errors,
    parse_gpus,
)
from vaultlayer_hf.run.engines.jobs.record import read_jobs, write_job
from vaultlayer_hf.run.engines.jobs.slurm import Slurm
from vaultlayer_hf.run.engines.jobs.table import NAMES, engine, parse_engines

REQUEST = JobRequest(
    ["python", "train.py", "--lr", "1 e"],
    "s3://b/x",
    "vl-train",
    Path("/data/me"),
    Path("/data/me/.vl"),
    "vaultlayer_hf.cli",
)


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


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("ray", "cpus", "many"), ("sky", "disk-size", "200GB"), ("k8s", "node-selector", "gpu"),
        ("k8s", "pvc", "claim"), ("k8s", "memory", "64 GB"), ("sky", "cpu", "8"),
    ],
)  # fmt: skip
def test_own_options_are_read_before_submission(name: str, option: str, value: str) -> None:
    """A value that an engine's own option can't have is refused here, not found out on the cluster."""
    with pytest.raises(SettingsError, match=f"{option}.* is |{option}.* it has"):
        engine(name).refuse(replace(REQUEST, more={"image": "x", option: value}))


@pytest.mark.parametrize("name", ["ray", "sky"])
def test_a_script_outside_of_the_copied_folder(name: str, tmp_path: Path) -> None:
    """Where nodes get a copy of the folder, a script outside of it is refused, and a path of this machine is said."""
    with pytest.raises(SettingsError, match="outside of this folder"):
        engine(name).refuse(replace(REQUEST, command=["python", "../train.py"]))
    here = tmp_path / "train.py"
    here.touch()
    said = engine(name).differs(replace(REQUEST, command=["python", str(here)]))
    assert any(str(here) in sentence for sentence in said)


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


@pytest.mark.parametrize(
    ("home", "left_out"),
    [("/data/me/.vl", ["/.vl/"]), ("/data/me", []), ("/runs/src", []), ("/data/me/a/b", ["/a/b/"])],
)
def test_what_ray_does_not_copy(home: str, left_out: list[str]) -> None:
    """The run folder isn't copied where it lies in the folder; one elsewhere takes nothing of its name along."""
    environment = ray.submission(replace(REQUEST, home=Path(home)))["runtime_env"]
    assert environment["excludes"] == [*left_out, "/.git/"]


def test_states_of_ray() -> None:
    """Of a job that failed the exit code is said, and not the end of its log with the colours of a terminal."""
    message = (
        "Job entrypoint command failed with exit code 5, last available logs (truncated):\n\x1b[36m(run_node)"
    )
    failed = ray.describe("FAILED", message)
    assert (failed.state, failed.detail) == (
        "stopped",
        "FAILED: Job entrypoint command failed with exit code 5",
    )
    assert ray.describe("RUNNING", "Job is currently running.") == JobState("running", "RUNNING")


def test_jobs_are_noted(tmp_path: Path) -> None:
    """What was handed in is found again, in order; a line that was cut short is passed over."""
    jobs = [Job("slurm", str(number), "vl-x", "s3://b/x", log="/x.out", time=1.0) for number in (7, 8)]
    for job in jobs:
        write_job(tmp_path, job)
    with open(tmp_path / "jobs.jsonl", "a") as file:
        file.write('{"kind": "job", "engi')
    assert read_jobs(tmp_path) == jobs
    assert str(jobs[1]) == "slurm:8"


def test_a_job_whose_vault_is_out_of_reach_here(tmp_path: Path) -> None:
    """Without keys for its vault, as on a login node, how a job is is still what its engine says, and that is said."""
    write_job(tmp_path / ".vl", Job("slurm", "7", "vl-x", "s3://b/x", time=1.0))
    no_keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "") | {
        "AWS_EC2_METADATA_DISABLED": "true"
    }
    done = vl("status", cwd=tmp_path, **no_keys)
    assert (done.code, "slurm:7: unknown" in done.out) == (0, True), done.err
    assert "no AWS credentials" in done.err


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
    assert "looks like a secret" not in done.err
    assert json.loads(done.out)["runtime_env"]["env_vars"]["VAULTLAYER_KEEP_LAST"] == "7"
    done = vl(*command, "--token", "hf_" + "a" * 30, cwd=tmp_path)
    assert (done.code, "looks like a secret" in done.err) == (0, True), done.err
