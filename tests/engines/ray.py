"""A Ray cluster on this machine: a head without CPUs, and two raylets that work."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.run.programs import environment
from tests.servers import die_with_parent, free_ports

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
"""Variables of all that runs Ray here. A token that Ray leaves in the home folder would be a head's alone."""


def why_not() -> str:
    """Return why no cluster can be started here; empty where one can."""
    there = all(importlib.util.find_spec(name) for name in ("ray", "aiohttp_cors"))
    return "" if there else "needs Ray: pip install 'ray[default]'"


def _words(process: psutil.Process) -> list[str]:
    """Return a process's command line; a raylet starts short programs, too, which may have ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


class RayCluster:
    """A running cluster.

    Attributes:
        env: variables that lead `vl run --on ray` to it.
        address: where a program of Ray's finds it.
    """

    def __init__(self, variables: dict[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vlray-"))  # sockets lie in it: a short path
        self._port, self._dashboard = free_ports(2)
        self.env = {"RAY_ADDRESS": f"http://127.0.0.1:{self._dashboard}"}
        self.address = f"127.0.0.1:{self._port}"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self._env = environment(PATH=path, **QUIET, **variables)
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all of it."""
        agent, client = free_ports(2)
        self._start(
            "head", "--head", f"--port={self._port}", f"--dashboard-port={self._dashboard}", "--num-cpus=0",
            f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
            f"--temp-dir={self.folder}",
        )  # fmt: skip
        for name in ("n1", "n2"):
            self.start_node(name)

    def start_node(self, name: str) -> None:
        """Start a raylet."""
        (agent,) = free_ports(1)
        self._start(
            name,
            f"--address={self.address}",
            "--num-cpus=1",
            f"--dashboard-agent-listen-port={agent}",
        )

    def _start(self, name: str, *options: str) -> None:
        if (before := self._nodes.get(name)) is not None:  # what is left of a node that was lost
            if before.poll() is None:
                os.killpg(before.pid, signal.SIGKILL)
            before.wait()
        (self.folder / f"{name}.log").unlink(missing_ok=True)
        with open(self.folder / f"{name}.log", "ab") as log:
            self._nodes[name] = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options],
                env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        end = time.monotonic() + 90
        while "started" not in (self.folder / f"{name}.log").read_text().lower():
            assert time.monotonic() < end, self.logs()
            assert self._nodes[name].poll() is None, self.logs()
            time.sleep(0.3)

    def lose_the_one_that_runs(self, word: str) -> str:
        """Kill the raylet under which a command with this word runs; return the node's name."""
        for name, process in self._nodes.items():
            for raylet in psutil.Process(process.pid).children(recursive=True):
                named = Path(next(iter(_words(raylet)), "")).name == "raylet"
                if named and any(word in _words(one) for one in raylet.children(recursive=True)):
                    raylet.kill()
                    return name
        raise AssertionError(f"no raylet runs {word}")

    def await_loss(self, seconds: float) -> str:
        """Wait until a node has ended because its raylet is gone; return its name."""
        end = time.monotonic() + seconds
        while not (ended := [name for name, one in self._nodes.items() if one.poll() is not None]):
            assert time.monotonic() < end, f"no node has ended within {seconds:.0f} s"
            time.sleep(0.3)
        return ended[0]

    def logs(self) -> str:
        """What the nodes have written."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log"))

    def close(self) -> None:
        """End all of it."""
        family = [
            child
            for process in self._nodes.values()
            if process.poll() is None
            for child in psutil.Process(process.pid).children(recursive=True)
        ]
        for process in self._nodes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for one in family:
            if one.is_running():
                one.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
