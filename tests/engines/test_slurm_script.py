"""Slurm's batch script, without Slurm: what it asks for, how it ends, and what no line of it may hold."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.test_requests import REQUEST
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import Gpus
from vaultlayer_hf.run.engines.jobs.slurm import Slurm, describe, parse_job


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


@pytest.mark.parametrize(
    ("code", "again"), [(0, False), (5, False), (127, False), (75, True), (3, True), (143, True)]
)
def test_what_the_batch_script_makes_of_an_exit_code(code: int, again: bool, tmp_path: Path) -> None:
    """The script ends as `vl run` did, and asks for another start where one may end otherwise; never too often."""
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    text = Slurm().manifest(replace(REQUEST, max_restarts=1))
    text = re.sub(r"(?m)^.* &$", f"bash -c 'exit {code}' &", text)  # in the place of `vl run`
    for count in ("0", "1"):
        variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": count}
        done = subprocess.run(["bash"], input=text, text=True, env=variables, timeout=20, capture_output=True)
        assert (done.returncode, done.stderr) == (code, "")
    asked = tmp_path / "asked"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 7\n" if again else "")


@pytest.mark.parametrize("name", ["time", "nodes", "ntasks", "array", "no-requeue"])
def test_options_of_sbatch_that_are_the_scripts(name: str) -> None:
    """What the rest of the batch script goes by isn't changed behind its back by an option of sbatch's own."""
    with pytest.raises(SettingsError, match=f"--engine-option {name}"):
        Slurm().refuse(replace(REQUEST, more={name: "2"}))
    Slurm().refuse(replace(REQUEST, more={"account": "me", "exclusive": ""}))
    with pytest.raises(SettingsError, match="a shorter --grace"):
        Slurm().refuse(replace(REQUEST, grace=86400.0))


def test_no_line_of_the_batch_script_is_made_up() -> None:
    """A line break in a name isn't another line of the script: such a job is refused."""
    for changed in (
        {"queue": "x\n#SBATCH --uid=0"},
        {"more": {"comment": "a\nrm -r x"}},
        {"home": Path("/a\nb/.vl")},
    ):
        with pytest.raises(SettingsError, match="can't hold"):
            Slurm().refuse(replace(REQUEST, **changed))


def test_states_of_slurm() -> None:
    """What scontrol prints is understood: running, waiting for another start, ended."""
    line = "JobId=7 JobName=x JobState={} Reason={} Restarts=1 ExitCode=5:0 NodeList={} Command=(null)"
    running = describe(parse_job(line.format("RUNNING", "None", "n[1-2]")))
    assert (running.state, running.nodes, running.restarts) == ("running", "n[1-2]", 1)
    assert describe(parse_job(line.format("PENDING", "BeginTime", "(null)"))).detail == "PENDING (BeginTime)"
    assert describe(parse_job(line.format("FAILED", "NonZeroExitCode", "n1"))).state == "stopped"


def test_fields_with_blanks() -> None:
    """A folder with blanks in its name is read whole from what scontrol prints."""
    found = parse_job(
        "JobId=7 JobName=a b WorkDir=/my data/x=1 y StdOut=/my data/.vl/slurm-7.out TRES=cpu=1,node=1\n"
    )
    assert found["JobName"] == "a b"
    assert found["StdOut"] == "/my data/.vl/slurm-7.out"
    assert found["TRES"] == "cpu=1,node=1"
