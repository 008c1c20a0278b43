"""The batch script of a job on Slurm. Pure.

It asks for its own requeue where `vl run` has ended in a way that another start may mend, and it is the one that Slurm
signals ahead of the time limit: it passes the signal on, and waits for the end.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from vaultlayer_hf.run.engines.jobs.base import GO_ON, LASTING, JobRequest
from vaultlayer_hf.run.engines.jobs.command import Here, node_line

_HERE = Here(
    node="$SLURM_NODEID",
    # srun tells each task the address of the node that started it: that of the script, the allocation's first.
    head="$SLURM_LAUNCH_NODE_IPADDR",
    port="$((20000 + SLURM_JOB_ID % 10000))",
    job="$SLURM_JOB_ID",
    python=sys.executable,
)
_LAST_NODE = 1800.0
"""Seconds that nodes have for their last uploads once one of them has ended: as long as flush_timeout is by default."""
_SET_BY = {
    "nodes": "--nodes",
    "partition": "--queue",
    "clusters": "--cluster",
    "gpus-per-node": "--gpus",
    "time": "--time-limit",
    "signal": "--grace",
    "requeue": "--max-restarts",
    "no-requeue": "--max-restarts 0",
}
"""Options of sbatch that follow from those of `vl run`, by which the rest of the script goes, too."""
_LONGEST = 65535
"""Seconds ahead of the time limit at which sbatch can be asked for a signal."""
_ONE_A_NODE = ("ntasks", "ntasks-per-node", "ntasks-per-gpu", "array", "wrap")


def cannot_be_named(request: JobRequest) -> list[str]:
    """Return a sentence for each option of sbatch that the script can't have, and for what no line of it can hold."""
    found = [
        f"its {name} follows from {option}, so name that instead of --engine-option {name}"
        for name, option in _SET_BY.items()
        if name in request.more
    ]
    found += [
        f"--engine-option {name} can't be: each node runs one `vl run`, and a vault belongs to one run"
        for name in _ONE_A_NODE
        if name in request.more
    ]
    if request.grace > _LONGEST:
        found.append(f"it signals a job at most {_LONGEST} s ahead of its time limit: use a shorter --grace")
    words = [str(request.folder), str(request.home), request.queue or "", request.cluster or ""]
    words += [word for pair in request.more.items() for word in pair]
    return found + [
        f"a line of a batch script can't hold {word!r}" for word in words if not word.isprintable()
    ]


def script(request: JobRequest) -> str:
    """Return the batch script of a job. Raises SettingsError."""
    asked = {
        "job-name": request.name,
        "nodes": str(request.nodes),
        "ntasks-per-node": "1",
        "chdir": str(request.folder),
        "output": str(request.home).replace("%", "%%") + "/slurm-%j.out",
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
    several = request.nodes > 1
    return _SCRIPT.format(
        options="\n".join(f"#SBATCH {option}" for option in options),
        exports="\n".join(exports),
        start=_on_each_node(request) if several else node_line(request, _HERE),
        # srun itself would end its tasks within KillWait seconds of a SIGTERM, whatever they still have to save.
        tell=('scancel --signal=TERM "$SLURM_JOB_ID" || ' if several else "")
        + 'kill -TERM "$child" 2> /dev/null',
        most=request.max_restarts,
        lasting=" | ".join(map(str, LASTING)),
    )


def log_file(home: Path, number: str) -> Path:
    """Return the file that a job writes to."""
    return home / f"slurm-{number}.out"


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
trap 'told=1; {tell}' TERM
{start} &
child=$!
while
    told=
    wait "$child"
    code=$?
    [ -n "$told" ] # the signal has ended the wait, and not yet what is waited for
do :; done

# Behind these codes another start would end alike. Behind all others, such as 75 (told to end), 3 (the store is out of
# reach) and 137 (`vl run` itself was killed), the job goes on with its next start.
# Where `vl stop` has told it to end, it has no right to a requeue any more.
case $code in 0 | {lasting}) ;; *)
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {most} ]; then scontrol requeue "$SLURM_JOB_ID"; fi ;;
esac
exit "$code"
"""


def _on_each_node(request: JobRequest) -> str:
    """Return the line by which srun starts `vl run` on each of several nodes."""
    each = _EACH.format(
        home=shlex.quote(str(request.home)),
        line=node_line(request, _HERE),
        lasting=" | ".join(map(str, LASTING)),
        go_on=GO_ON,
    )
    return (
        f"srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait={_LAST_NODE:.0f} bash -c {shlex.quote(each)}"
    )


# The other nodes' run folders lie inside the first one's, where the disk is shared. Slurm sends SIGTERM to all of a
# step, this shell among them.
_EACH = """\
trap : TERM
[ -n "$VAULTLAYER_RUN_DIR" ] || VAULTLAYER_RUN_DIR={home}
[ "$SLURM_NODEID" = 0 ] || VAULTLAYER_RUN_DIR="$VAULTLAYER_RUN_DIR/nodes/$SLURM_NODEID"
export VAULTLAYER_RUN_DIR
{line}
code=$?
case $code in {lasting}) scontrol update JobId="$SLURM_JOB_ID" Requeue=0 ;; esac
case $code in 0 | {go_on}) ;; *) # the other nodes would wait for this one in vain
    echo "[vl] node $SLURM_NODEID has ended with exit code $code: the others are told to end"
    scancel --signal=TERM "$SLURM_JOB_ID" ;;
esac
exit $code"""
