"""The ways in which a training dies here, each for real, on one rank and on two; what must be decided about it.

``play`` lets one happen under `vl run`, and returns what there is to look at.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.run.programs import SCRIPT, Ran, finish, start, torchrun

SAME, CLOSE, NONE = "same", "close", "none"
"""Final weights: those of an unbroken run; of one but for rounding; or there are none."""


@dataclass(frozen=True)
class Kind:
    """A way to die.

    Attributes:
        causes: of each death, in order, of all calls of `vl run`.
        end: of the weights.
        environment: of the script.
        options: of `vl run`.
        code: exit code of the last `vl run`.
        calls: how often `vl run` is started.
        during: what is done to a running `vl run`, given it and its folder; each call but the last.
        around: what is set up around it all, given the folder and the number of ranks.
        needs_root: it can't be done without.
    """

    causes: tuple[str, ...]
    end: str = SAME
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    code: int = 0
    calls: int = 1
    during: Callable[[subprocess.Popen[str], Path], None] | None = None
    around: Callable[[Path, int], contextlib.AbstractContextManager[list[str]]] | None = None
    needs_root: bool = False


def once(step: int, action: str) -> dict[str, str]:
    """The environment that has the last rank do something once, before a step is trained."""
    return {"FATE": f"{step} {action}", "FATE_ONCE": "done", "FATE_RANK": "last"}


def play(kind: Kind, ranks: int, folder: Path, launcher: Sequence[str] | None = None) -> Ran:
    """Let a training die in this way, under `vl run`, until that has ended. Several ranks: by torchrun if None."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(SCRIPT)
    command = [sys.executable, "train.py"] if ranks == 1 else [*(launcher or torchrun(ranks)), "train.py"]
    more = {name: value.replace("last", str(ranks - 1)) for name, value in kind.environment.items()}
    if kind.end == CLOSE:
        more["DROPOUT"] = "0"
    with kind.around(folder, ranks) if kind.around else contextlib.nullcontext([]) as prefix:
        for call in range(kind.calls):
            process = start(folder, *command, options=kind.options, prefix=prefix, **more)
            if kind.during is not None and call < kind.calls - 1:
                kind.during(process, folder)
            ran = finish(process, folder)
    return ran


def await_file(path: Path, process: subprocess.Popen[str], timeout: float = 60.0) -> None:
    """Wait until the script has made a file."""
    deadline = time.monotonic() + timeout
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never appeared"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def _kill_tree(process: subprocess.Popen[str], folder: Path) -> None:
    await_file(next_file(folder), process)
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in tree:
        with contextlib.suppress(psutil.Error):
            one.kill()


def _terminate(process: subprocess.Popen[str], folder: Path) -> None:
    await_file(next_file(folder), process)
    process.send_signal(signal.SIGTERM)


def next_file(folder: Path) -> Path:
    """The file that the last rank makes when its fate is there."""
    ranks = 2 if (folder / "two").exists() else 1
    return folder / f"done-{ranks - 1}"


@contextlib.contextmanager
def _two(folder: Path, ranks: int) -> Iterator[list[str]]:
    if ranks == 2:
        (folder / "two").touch()
    yield []


@contextlib.contextmanager
def _small_disk(folder: Path, ranks: int) -> Iterator[list[str]]:
    """output_dir on a disk that three checkpoints fill: each rank has files of its own in them."""
    size = f"size={ {1: 500, 2: 800}[ranks] }k"
    (folder / "out").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder / "out")], check=True)
    try:
        yield []
    finally:
        subprocess.run(["umount", "-l", str(folder / "out")], check=True)


@contextlib.contextmanager
def _memory_cgroup(folder: Path, ranks: int) -> Iterator[list[str]]:
    """A cgroup whose memory two full micro-batches don't fit in, and two halves do."""
    limit = {1: 950, 2: 1900}[ranks] * 2**20
    name = f"vl-test-{uuid.uuid4().hex[:8]}"
    old = Path("/sys/fs/cgroup/memory")
    group = (old if old.is_dir() else Path("/sys/fs/cgroup")) / name
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text(str(limit))
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


_LIMIT = (
    "import resource, psutil; limit = psutil.Process().memory_info().vms + 2**28 * 5; "
    "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))"
)

# A checkpoint is on this disk for good or in the vault before the kill: else starting anew is right.
_KILL_ONCE_SAFE = (
    "import glob, time; end = time.monotonic() + 60\n"
    "while time.monotonic() < end and not glob.glob('.vl/vault-*/data/*/*/.vault/manifest.json'): time.sleep(0.05)\n"
    "time.sleep(1); os.kill(os.getpid(), 9)"
)

KINDS = {
    "SIGKILL": Kind(("killed", "finished"), environment=once(7, _KILL_ONCE_SAFE)),
    "SIGKILL of the whole tree": Kind(
        ("finished",),
        environment=once(7, "import time; time.sleep(60)"),
        calls=2, during=_kill_tree, around=_two,
    ),
    "exception in a step": Kind(("crash", "finished"), environment=once(7, "raise ValueError('a bad row')")),
    "exception before the first step": Kind(
        ("startup",), NONE, environment={"BEFORE": "raise ValueError('no such column')"}, code=5
    ),
    "RLIMIT_AS": Kind(
        ("memory", "finished"), CLOSE, environment={"BEFORE": _LIMIT, "HUNGER": str(2**28 + 2**27)}
    ),
    "OOM killer of a cgroup": Kind(
        ("host-memory", "finished"), CLOSE,
        environment={"HUNGER": str(200 * 2**20), "TOUCH": "1"}, around=_memory_cgroup, needs_root=True,
    ),
    "torch.OutOfMemoryError": Kind(("memory", "finished"), CLOSE, environment={"LARGEST": "2"}),
    "loss is nan": Kind(("nonfinite", "finished"), environment=once(6, "Model.poison = True")),
    "a rank stuck": Kind(
        ("hang", "finished"), environment=once(7, "import time; time.sleep(600)"), options=("--hang-after", "5")
    ),
    # A pace at which a checkpoint is committed before the next is saved: else each attempt fills the disk again.
    "disk full": Kind(("disk-full", "finished"), environment={"PACE": "0.3"}, around=_small_disk, needs_root=True),
    "SIGTERM": Kind(
        ("told", "finished"),
        environment=once(7, "import time; time.sleep(3)"),
        calls=2, during=_terminate, around=_two,
    ),
    "vault out of reach": Kind(
        ("store", "store"), NONE, code=3, options=("--vault", "s3://nowhere/run", "--give-up-after", "2"),
        environment={
            "VAULTLAYER_RESUME_TIMEOUT": "1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_REGION": "x",
            "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        },
    ),
}  # fmt: skip


def why_impossible(kind: Kind) -> str:
    """Return why a kind of death can't be had on this machine; empty where it can."""
    if not kind.needs_root:
        return ""
    if os.geteuid():
        return "needs root"
    return "" if shutil.which("mount") else "needs mount"


def check(kind: Kind, ran: Ran, reference: Ran | None) -> None:
    """Assert what was decided, and what the run ended with."""
    assert ran.code == kind.code, ran.err[-3000:]
    causes = ran.causes
    if causes != list(kind.causes):
        # A disk may fill more than once, each time a little later.
        assert causes == ["disk-full"] * (len(causes) - 1) + ["finished"], causes
        assert kind.causes[0] == "disk-full"
    for death, decision in zip(ran.lines("death"), ran.lines("decision"), strict=True):
        assert death["detail"]
        assert decision["reason"]
    assert not leftovers(ran.folder)
    if kind.end == SAME:
        assert reference is not None
        assert ran.weights == reference.weights
        assert ran.losses == reference.losses
    elif kind.end == CLOSE:
        assert reference is not None
        pairs = list(zip(ran.losses, reference.losses, strict=True))
        assert all(abs(mine - theirs) < 2e-3 for mine, theirs in pairs), pairs


def leftovers(folder: Path) -> list[psutil.Process]:
    """Processes that still run in a training's folder."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.cwd() == str(folder) and one.pid != os.getpid() and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found
