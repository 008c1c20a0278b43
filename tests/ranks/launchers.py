"""Trainings under the real launchers: torchrun's agents, each in a network of its own, and accelerate launch."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests import ROOT
from tests.ranks.launch import PATIENCE, Attempt
from tests.servers import die_with_parent, free_ports

_MARK = "VL_TEST_LAUNCH"


class Launch(Attempt):
    """An attempt under real launchers, one process of theirs a node.

    Attributes:
        agents: by node.
    """

    def __init__(self, folder: Path, world: int) -> None:
        super().__init__(folder, world)
        self.mark = uuid.uuid4().hex
        self.agents: list[subprocess.Popen[bytes]] = []

    def add(self, command: Sequence[str], env: dict[str, str] | None = None) -> None:
        """Start the launcher of the next node."""
        node = len(self.agents)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("VAULTLAYER_")},
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            _MARK: self.mark,
            **(env or {}),
        }
        with open(self.folder / f"agent-{node}", "wb") as log:
            self.agents.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    preexec_fn=die_with_parent,
                )
            )

    def processes(self, node: int | None = None) -> list[psutil.Process]:
        """Every process of this attempt that lives, the workers in sessions of their own too; of one node only."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        if node is None:
            return found
        agent = self.agents[node].pid
        return [one for one in found if one.pid == agent or agent in [parent.pid for parent in _parents(one)]]

    def worker(self, rank: int) -> psutil.Process:
        """The process of a rank."""
        return psutil.Process(next(note["pid"] for note in reversed(self.notes(rank)) if "pid" in note))

    def kill(self, node: int | None = None) -> None:
        """SIGKILL a node whole, or all: agents first, which would restart workers."""
        for process in sorted(self.processes(node), key=lambda one: one.pid):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def wait(self, timeout: float = 120.0) -> list[int]:
        """Wait until all agents have ended and return their exit codes; a hang fails."""
        deadline = time.monotonic() + timeout
        try:
            codes = [agent.wait(max(0.1, deadline - time.monotonic())) for agent in self.agents]
        except subprocess.TimeoutExpired:
            raise AssertionError(f"agents hang after {timeout:.0f} s:\n{self.errors()}") from None
        finally:
            self.kill()
        return codes

    def succeed(self, timeout: float = 120.0) -> None:
        """Wait until all agents have ended well."""
        codes = self.wait(timeout)
        assert not any(codes), f"exit codes {codes}:\n{self.errors()}"

    def errors(self) -> str:
        """What the agents and their ranks wrote."""
        return "\n".join(
            f"--- node {node}\n{(self.folder / f'agent-{node}').read_text(errors='replace')[-4000:]}"
            for node in range(len(self.agents))
        )

    def runs_still(self, rank: int) -> bool:
        """Whether any launcher runs."""
        return any(agent.poll() is None for agent in self.agents)


def _parents(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(process.parents())
    return []


class Launched:
    """A training under torchrun, started as often as wanted.

    Args:
        folder: scratch.
        outputs: output_dir of each rank.
        nodes: how many ranks each node has.
        networks: the network of each node; None: the host's own.
        restarts: how often the agent itself may start the ranks again.
        options: more of torchrun's own.
        program: what each rank is.
        spec: arguments of ``train_ranks.train``.
    """

    def __init__(
        self,
        folder: Path,
        outputs: list[Path],
        nodes: list[int],
        networks: list[Network] | None = None,
        env: dict[str, str] | None = None,
        restarts: int = 0,
        options: Sequence[str] = (),
        program: str = "tests.ranks.train_ranks",
        **spec: Any,
    ) -> None:
        self.restarts, self.options, self.program = restarts, options, program
        self.folder, self.outputs, self.nodes, self.networks = folder, outputs, nodes, networks
        self.spec, self.env = spec, env or {}
        self.attempts: list[Launch] = []

    def write_spec(self, **more: Any) -> tuple[Launch, Path]:
        """Make the folder of an attempt, and the file that tells its ranks what to do."""
        folder = self.folder / f"launch-{len(self.attempts)}"
        folder.mkdir(parents=True)
        spec = {"kind": "ddp", "settings": PATIENCE, **self.spec, **more}
        given = {"folder": str(folder), "outputs": [str(path) for path in self.outputs], "spec": spec}
        (folder / "spec.json").write_text(json.dumps(given))
        launch = Launch(folder, len(self.outputs))
        self.attempts.append(launch)
        return launch, folder / "spec.json"

    def start(self, **more: Any) -> Launch:
        """Start an agent on each node."""
        launch, spec = self.write_spec(**more)
        address = self.networks[0].address if self.networks else "127.0.0.1"
        port = free_ports(1)[0]
        for node, ranks in enumerate(self.nodes):
            command = [
                *(self.networks[node].enter if self.networks else []),
                *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={len(self.nodes)}"),
                *(f"--node-rank={node}", f"--nproc-per-node={ranks}", f"--master-addr={address}"),
                *(f"--master-port={port}", f"--max-restarts={self.restarts}", *self.options),
                *("-m", self.program, str(spec)),
            ]
            interface = {"GLOO_SOCKET_IFNAME": self.networks[node].interface} if self.networks else {}
            launch.add(command, {**self.env, **interface})
        return launch


class Network:
    """A network namespace with an address of its own, joined to others by a bridge.

    Attributes:
        address: of this node.
        interface: its name.
        enter: what a command begins with that is to run there.
        bridge, link: this host's devices: the bridge of all, and its end of this node's cable.
    """

    interface = "eth0"

    def __init__(self, name: str, address: str, bridge: str, link: str) -> None:
        self.name, self.address, self.bridge, self.link = name, address, bridge, link
        self.enter = ["ip", "netns", "exec", name]


@contextlib.contextmanager
def networks(count: int) -> Iterator[list[Network]]:
    """Give network namespaces joined by a bridge. Raises CalledProcessError where that isn't allowed."""
    key = uuid.uuid4().hex[:6]
    bridge, subnet = f"vlb{key}", f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
    made: list[Network] = []
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        for number in range(count):
            network = Network(f"vl{key}-{number}", f"{subnet}.{number + 1}", bridge, f"v{key}{number}")
            _ip("netns", "add", network.name)
            made.append(network)
            _ip(
                "link",
                "add",
                network.link,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                network.name,
            )
            _ip("link", "set", network.link, "master", bridge, "up")
            for command in (
                ("addr", "add", f"{network.address}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", network.name, *command)
        yield made
    finally:
        for network in made:
            subprocess.run(["ip", "netns", "del", network.name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


def _ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True)
