"""Slurm: a batch script that asks for its own requeue where `vl run` was told to end.

Slurm itself requeues a job whose node is gone (``--requeue``), and the script does where `vl run` ends with 75: at the
time limit, or because somebody sent SIGTERM. A job's log is one file over all its starts.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.run.engines.jobs.base import GO_ON, LASTING, Engine, EngineError, Job, JobRequest, JobState
from vaultlayer_hf.run.engines.jobs.command import Here, node_line

_HERE = Here(
    node="$SLURM_NODEID",
    # srun tells each task the address of the node that started it: that of the script, the allocation's first.
    head="$SLURM_LAUNCH_NODE_IPADDR",
    port="$((20000 + SLURM_JOB_ID % 10000))",
    job="$SLURM_JOB_ID",
    python=sys.executable,
)
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
_LAST_NODE = 1800.0
"""Seconds that nodes have for their last uploads once one of them has ended: as long as flush_timeout is by default."""
_PATIENCE = 60.0
"""Seconds that one of Slurm's commands may take."""


class Slurm(Engine):
    """``sbatch``, ``scontrol`` and ``scancel`` of the machine where `vl run` is called."""

    name = "slurm"
    own_options = None  # any option of sbatch: account=x, qos=y, constraint=z, mem=64G, cpus-per-task=8
    shared_disk = True

    def cannot(self, request: JobRequest) -> list[str]:
        """Return what Slurm can't do."""
        if request.spot:
            return ["it knows no spot machines: name a partition whose jobs may be preempted with --queue"]
        return []

    def differs(self, request: JobRequest) -> list[str]:
        """Return what is other than elsewhere."""
        found = ["it counts every start against --max-restarts, those behind a time limit, too"]
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
            log=str(_log(request)).replace("%j", number),
            time=time.time(),
        )

    def state(self, job: Job) -> JobState:
        """Return what ``scontrol`` says, or ``sacct`` of a job that has ended long ago."""
        try:
            found = parse_job(_call(["scontrol", *_clusters(job), "show", "job", job.id, "--oneliner"]))
        except EngineError as error:
            if "Invalid job id" in str(error):
                return JobState("unknown", "Slurm has forgotten it: it has ended")
            raise
        return describe(found)

    def logs(self, job: Job, *, follow: bool = False) -> Iterator[str]:
        """Yield the job's log file."""
        path = Path(job.log or self._log_of(job))
        offset = 0
        while True:
            ended = not follow or not self.state(job).alive
            data = files.read_from(path, offset)
            offset += len(data)
            if data:
                yield data.decode(errors="replace")
            if ended:
                return
            time.sleep(_EVERY)

    def stop(self, job: Job, *, now: bool = False) -> str:
        """Take the right to a requeue away, then send SIGTERM to the script, which passes it on to `vl run`."""
        state = self.state(job)
        if not state.alive:
            return f"{job} has ended already: {state.detail}"
        _call(["scontrol", *_clusters(job), "update", f"JobId={job.id}", "Requeue=0"])
        if now or state.state == "waiting":
            _call(["scancel", *_clusters(job), job.id])
            return f"{job} is cancelled"
        _call(["scancel", *_clusters(job), "--batch", "--signal=TERM", job.id])
        return f"{job} is told to save and end"

    def _log_of(self, job: Job) -> str:
        found = parse_job(_call(["scontrol", *_clusters(job), "show", "job", job.id, "--oneliner"]))
        if not found.get("StdOut"):
            raise EngineError(f"Slurm doesn't say where {job} writes to")
        return found["StdOut"]


def script(request: JobRequest) -> str:
    """Return the batch script of a job. Pure. Raises SettingsError."""
    asked = {
        "job-name": request.name,
        "nodes": str(request.nodes),
        "ntasks-per-node": "1",
        "chdir": str(request.folder),
        "output": str(_log(request)),
        "open-mode": "append",
        # To the script alone: what it starts gets it from there, and a DataLoader's workers don't.
        "signal": f"B:TERM@{max(1, round(request.grace))}",
    }
    if request.gpus.count:
        asked["gpus-per-node"] = str(request.gpus)
    if request.queue:
        asked["partition"] = request.queue
    if request.cluster:
        asked["clusters"] = request.cluster
    if request.time_limit is not None:
        minutes, seconds = divmod(round(request.time_limit), 60)
        asked["time"] = f"{minutes}:{seconds:02}"
    asked.update(request.more)
    options = [f"--{name}={shlex.quote(value)}" if value else f"--{name}" for name, value in asked.items()]
    grace = f"{request.grace:.0f}"
    variables = {"VAULTLAYER_GRACE": grace, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": grace}
    exports = [f'export {name}="${{{name}:-{value}}}"' for name, value in variables.items()]
    exports += [f"export {name}={shlex.quote(value)}" for name, value in request.variables.items()]
    return _SCRIPT.format(
        options="\n".join(f"#SBATCH {option}" for option in options),
        exports="\n".join(exports),
        start=_start(request),
        most=request.max_restarts,
        go_on=GO_ON,
    )


_SCRIPT = """\
#!/bin/bash
{options}
#SBATCH --requeue

# A job that is started again on other nodes goes on from the vault: nothing else is carried over.
{exports}
if [ "${{SLURM_RESTART_COUNT:-0}}" -gt {most} ]; then
    echo "[vl] Slurm has started this job again {most} times: that is enough"
    exit 5
fi

# Slurm sends SIGTERM to this shell ahead of the time limit. It passes it on, and waits for the end.
trap 'kill -TERM "$child" 2> /dev/null' TERM
{start} &
child=$!
wait "$child"
code=$?
while kill -0 "$child" 2> /dev/null; do
    wait "$child"
    code=$?
done

# {go_on}: told to end, the same command goes on. 137: `vl run` itself was killed.
# Where `vl stop` has told it to end, it has no right to a requeue any more.
case $code in {go_on} | 137)
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {most} ]; then scontrol requeue "$SLURM_JOB_ID"; fi ;;
esac
exit "$code"
"""


def _start(request: JobRequest) -> str:
    """Return what the script starts: `vl run` here, or by srun on each of several nodes."""
    line = node_line(request, _HERE)
    if request.nodes == 1:
        return line
    # The other nodes' run folders lie inside this one, where the disk is shared. Slurm sends SIGTERM to all of a step.
    home = f'export VAULTLAYER_RUN_DIR="${{VAULTLAYER_RUN_DIR:-{request.home}}}"'
    lasting = "|".join(map(str, LASTING))
    each = "\n".join(
        [
            "trap : TERM",
            home,
            '[ "$SLURM_NODEID" = 0 ] || VAULTLAYER_RUN_DIR="$VAULTLAYER_RUN_DIR/nodes/$SLURM_NODEID"',
            line,
            "code=$?",
            # Another start would end alike, and the other nodes would wait for this one in vain.
            f"case $code in {lasting})",
            '    scontrol update JobId="$SLURM_JOB_ID" Requeue=0',
            '    scancel --signal=TERM "$SLURM_JOB_ID" ;;',
            "esac",
            "exit $code",
        ]
    )
    return (
        f"srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait={_LAST_NODE:.0f} bash -c {shlex.quote(each)}"
    )


def _log(request: JobRequest) -> Path:
    return request.home / "slurm-%j.out"


def _clusters(job: Job) -> list[str]:
    return ["-M", job.cluster] if job.cluster else []


def parse_job(text: str) -> dict[str, str]:
    """Return the fields of a job as ``scontrol show job --oneliner`` prints it. Pure."""
    return dict(
        word.split("=", 1) for word in text.split() if "=" in word
    )  # a later word without = is of no use


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
