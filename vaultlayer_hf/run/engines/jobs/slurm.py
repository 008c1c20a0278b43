"""Slurm: a batch script, as slurm_script.py makes it, handed in by ``sbatch``.

Slurm itself requeues a job whose node is gone (``--requeue``), and the script does behind each exit code that doesn't
last: 75, say, at the time limit, or because somebody sent SIGTERM. A job's log is one file over all its starts.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import EngineError, Job, JobRequest, JobState
from vaultlayer_hf.run.engines.jobs.engine import Engine
from vaultlayer_hf.run.engines.jobs.slurm_script import cannot_be_named, log_file, script

_WAITING = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
)
_RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
_EVERY = 1.0
"""Seconds between two looks at a log that is followed."""
_PATIENCE = 60.0
"""Seconds that one of Slurm's commands may take."""


class Slurm(Engine):
    """``sbatch``, ``scontrol`` and ``scancel`` of the machine where `vl run` is called."""

    name = "slurm"
    own_options = None  # any option of sbatch: account=x, qos=y, constraint=z, mem=64G, cpus-per-task=8
    shared_disk = True

    def cannot(self, request: JobRequest) -> list[str]:
        """Return what Slurm can't do."""
        found = cannot_be_named(request)
        if request.spot:
            found.append(
                "it knows no spot machines: name a partition whose jobs may be preempted with --queue"
            )
        return found

    def differs(self, request: JobRequest) -> list[str]:
        """Return what is other than elsewhere."""
        found = ["it counts every start against --max-restarts, those after a time limit, too"]
        if request.vault.startswith("file:"):
            found.append("the vault is a folder: every node must see it at the same path")
        return found

    def manifest(self, request: JobRequest) -> str:
        """Return the batch script."""
        return script(request)

    def submit(self, request: JobRequest) -> Job:
        """Hand the script to ``sbatch``, with this environment (credentials among it) for the job."""
        text = script(request)
        request.home.mkdir(parents=True, exist_ok=True)
        answer = _call(["sbatch", "--parsable"], stdin=text).strip().splitlines()[-1]
        number = answer.partition(";")[0]
        return Job(
            engine=self.name,
            id=number,
            name=request.name,
            vault=request.vault,
            cluster=request.cluster,
            log=None if "output" in request.more else str(log_file(request.home, number)),
            time=time.time(),
        )

    def state(self, job: Job) -> JobState:
        """Return what ``scontrol`` says, or ``sacct`` of a job that has ended long ago."""
        found = _record(job)
        return describe(found) if found else _accounted(job)

    def logs(self, job: Job, *, follow: bool = False) -> Iterator[str]:
        """Yield the job's log file. Raises EngineError where there is none, since the job hasn't begun, say."""
        path = Path(job.log or self._log_of(job))
        offset = 0
        while True:
            ended = not follow or not self.state(job).alive
            data = files.read_from(path, offset)
            offset += len(data)
            if data:
                yield data.decode(errors="replace")
            if ended:
                break
            time.sleep(_EVERY)
        if not offset and not path.exists():
            state = self.state(job)
            raise EngineError(
                f"{job} has written nothing yet: {state.detail}"
                if state.alive
                else f"the log of {job} isn't there: {path}; {state.detail}"
            )

    def end(self, job: Job, state: JobState, *, now: bool) -> str:
        """Take the right to a requeue away, then send SIGTERM to the script, which passes it on to `vl run`."""
        _call(["scontrol", *_clusters(job), "update", f"JobId={job.id}", "Requeue=0"])
        if now or state.state == "waiting":
            _call(["scancel", *_clusters(job), job.id])
            return f"{job} is cancelled"
        _call(["scancel", *_clusters(job), "--batch", "--signal=TERM", job.id])
        return f"{job} is told to save and end"

    def _log_of(self, job: Job) -> str:
        found = _record(job)
        if not found.get("StdOut"):
            raise EngineError(f"Slurm doesn't say where {job} writes to: {self.state(job).detail}")
        return found["StdOut"]


def _record(job: Job) -> dict[str, str]:
    """Return what ``scontrol`` knows of a job; nothing of one that has ended long ago. Raises EngineError."""
    if re.fullmatch(r"\d+([_+]\d+)?", job.id) is None:
        raise SettingsError(f"{job}: Slurm's jobs have numbers, such as slurm:4711")
    try:
        return parse_job(_call(["scontrol", *_clusters(job), "show", "job", job.id, "--oneliner"]))
    except EngineError as error:
        if "Invalid job id" in str(error):
            return {}
        raise


def _accounted(job: Job) -> JobState:
    """Return how a job is that the controller has forgotten: what the site's accounting says, where it keeps one."""
    asked = [
        "--allocations",
        "--noheader",
        "--parsable2",
        "--format=State,ExitCode,NodeList",
        f"--jobs={job.id}",
    ]
    try:
        lines = _call(["sacct", *_clusters(job), *asked]).split("\n")
    except EngineError:
        lines = []  # no accounting at this site
    for line in filter(None, reversed(lines)):
        state, code, nodes = [*line.split("|"), "", ""][:3]
        return describe({"JobState": state.split()[0], "ExitCode": code, "NodeList": nodes})
    return JobState("unknown", "Slurm has no record of it: it has ended some time ago, or there was none")


def _clusters(job: Job) -> list[str]:
    return ["-M", job.cluster] if job.cluster else []


def parse_job(text: str) -> dict[str, str]:
    """Return the fields of a job as ``scontrol show job --oneliner`` prints it; values may hold blanks. Pure."""
    return dict(re.findall(r"(?:^|\s)([A-Za-z][\w:/]*)=(.*?)(?=\s+[A-Za-z][\w:/]*=|\s*$)", text))


def describe(found: Mapping[str, str]) -> JobState:
    """Return how a job is from ``scontrol``'s fields. Pure."""
    state, reason = found.get("JobState", ""), found.get("Reason", "None")
    restarts = int(found["Restarts"]) if found.get("Restarts", "").isdigit() else None
    detail = state if reason in ("None", "") else f"{state} ({reason})"
    nodes = found.get("NodeList", "")
    nodes = "" if nodes == "(null)" else nodes
    if state in _WAITING:
        return JobState("waiting", detail, "", restarts)
    if state in _RUNNING:
        return JobState("running", detail, nodes, restarts)
    if state == "COMPLETED":
        return JobState("finished", detail, nodes, restarts)
    code = found.get("ExitCode", "").partition(":")[0]
    return JobState("stopped", f"{detail}, exit code {code}" if code else detail, nodes, restarts)


def _call(command: list[str], *, stdin: str | None = None) -> str:
    """Run one of Slurm's commands; return what it printed. Raises EngineError."""
    if shutil.which(command[0]) is None:
        raise EngineError(
            f"there is no {command[0]} on this machine: submit from a login node of the cluster"
        )
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{command[0]} hasn't answered for {_PATIENCE:.0f} s") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise EngineError(f"{command[0]}: {said or f'exit code {done.returncode}'}")
    return done.stdout
