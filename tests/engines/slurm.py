"""A Slurm cluster of two nodes on this machine: munged, slurmctld and two slurmd, as root, nothing in /etc."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.servers import die_with_parent, free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
_CONFIG = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={control}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd-%n
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdTimeout=10
InactiveLimit=0
KillWait=30
MessageTimeout=10
BatchStartTimeout=10
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5,sched_min_interval=0
JobRequeue=1
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname={host} Port={n1} CPUs={cpus} State=UNKNOWN
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname={host} Port={n2} CPUs={cpus} State=UNKNOWN
PartitionName=p Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Return why no cluster can be started here; empty where one can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"needs Slurm ({', '.join(missing)}): apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "needs root, for Slurm's daemons"


class SlurmCluster:
    """A running cluster.

    Attributes:
        env: variables that lead Slurm's commands to it.
    """

    nodes = ("n1", "n2")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "log", "munge", *(f"spool/{node}" for node in self.nodes)):
            (folder / name).mkdir(parents=True)
        (folder / "munge").chmod(0o700)
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        control, n1, n2 = free_ports(3)
        config = folder / "slurm.conf"
        host = socket.gethostname().partition(".")[0]
        cpus = os.cpu_count() or 1
        config.write_text(_CONFIG.format(folder=folder, control=control, n1=n1, n2=n2, host=host, cpus=cpus))
        self.env = {"SLURM_CONF": str(config), "PATH": PATH}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all of it, and wait until both nodes are idle."""
        munge = self.folder / "munge"
        self._start(
            "munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/sock",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        until(lambda: (munge / "sock").exists(), 20, "munged")
        self._start("slurmctld", "-D", "-i")
        for node in self.nodes:
            self.start_node(node)
        until(lambda: self._idle() == 2, 60, "two idle nodes")

    def start_node(self, node: str) -> None:
        """Start a node's slurmd, where it isn't running."""
        if node in self._processes:
            return
        self._start("slurmd", "-D", "-N", node, name=node)

    def _start(self, *command: str, name: str = "") -> None:
        with open(self.folder / "log" / (name or command[0]), "ab") as log:
            self._processes[name or command[0]] = subprocess.Popen(
                [str(shutil.which(command[0], path=PATH)), *command[1:]],
                env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip

    def _idle(self) -> int:
        done = self.call("sinfo", "-h", "-o", "%t %D", check=False)
        return sum(int(line.split()[1]) for line in done.splitlines() if line.split()[0] == "idle")

    @contextmanager
    def changed(self, old: str, new: str) -> Iterator[None]:
        """Change a line of the configuration for a while."""
        config = Path(self.env["SLURM_CONF"])
        before = config.read_text()
        config.write_text(before.replace(old, new))
        self.call("scontrol", "reconfigure")
        try:
            yield
        finally:
            config.write_text(before)
            self.call("scontrol", "reconfigure")

    def call(self, *command: str, check: bool = True, **more: str) -> str:
        """Run one of Slurm's commands; return what it printed."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.env, **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """Return the fields of a job."""
        text = self.call("scontrol", "show", "job", number, "--oneliner")
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def lose(self, node: str) -> None:
        """Lose a node: its slurmd and all that runs under it, at once, as by a power cut."""
        os.killpg(self._processes[node].pid, signal.SIGKILL)
        self._processes.pop(node).wait()
        # First what would tell the controller how the job ended.
        for process in sorted(self._of(node), key=lambda one: one.name() != "slurmstepd"):
            process.kill()

    def _of(self, node: str | None) -> list[psutil.Process]:
        """Return the processes that a node runs; None: any node."""
        return [process for process in psutil.process_iter() if self._is_of(process, node)]

    def _is_of(self, process: psutil.Process, node: str | None) -> bool:
        try:
            if process.name() == "slurmstepd":  # its title is written over its variables
                logs = {f"slurmd-{one}" for one in self.nodes if node in (None, one)}
                return any(
                    Path(one.path).parent == self.folder / "log" and Path(one.path).name in logs
                    for one in process.open_files()
                )
            variables = process.environ()
        except psutil.Error:
            return False
        mine = variables.get("SLURM_CONF") == self.env["SLURM_CONF"] and "SLURM_JOB_ID" in variables
        return mine and node in (None, variables.get("SLURMD_NODENAME"))

    def close(self) -> None:
        """End all of it."""
        self.call("scancel", "--signal=KILL", "-u", "root", check=False)
        for name, process in reversed(self._processes.items()):
            os.killpg(process.pid, signal.SIGKILL if name != "munged" else signal.SIGTERM)
            process.wait()
        for process in self._of(None):
            process.kill()

    def logs(self) -> str:
        """What the daemons have written, its end."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted((self.folder / "log").iterdir())
        )


def until(holds: Callable[[], object], seconds: float, what: str) -> None:
    """Wait."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"no {what} after {seconds:.0f} s"
        time.sleep(0.2)
