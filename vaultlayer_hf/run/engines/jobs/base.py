"""What a job is asked to be, what is known of it, and the errors of engines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vaultlayer_hf.errors import MissingExtraError, SettingsError, VaultLayerError

GO_ON = 75
"""Exit code of `vl run` that was told to end: the same command goes on."""
LASTING = (1, 2, 4, 5, 70, 126, 127)
"""Exit codes behind which another start ends in the same way: a person must change something. 126 and 127 are a
shell's, where there is no such program as the node was told to start."""

MAX_RESTARTS = 100
"""Starts by an engine that are allowed where nothing else is said: a lasting failure ends a run long before."""


class EngineError(VaultLayerError):
    """An engine is out of reach, or hasn't taken a job; the message says why."""


@contextmanager
def engine_errors(failed: str | Callable[[Exception], str | None]) -> Iterator[None]:
    """Raise what an engine's library raises in the block as EngineError; errors of this package stay as they are.

    The libraries raise errors of many kinds, their own, requests' and plain ones, without a common class.

    Args:
        failed: what has failed, as the sentence's begin, or what makes the whole sentence of an error, where None says
            that the error isn't the engine's and stays as it is.

        with engine_errors("Ray can't be asked"):
            client.get_job_info(job.id)
    """
    try:
        yield
    except VaultLayerError:
        raise
    except Exception as error:
        said = f"{failed}: {one_line(error)}" if isinstance(failed, str) else failed(error)
        if said is None:
            raise
        raise EngineError(said) from error


def one_line(said: object) -> str:
    """Return an engine's own words as one line of at most 500 characters."""
    return " ".join(str(said).split())[:500]


@dataclass(frozen=True)
class Gpus:
    """GPUs of a node.

    Attributes:
        count: how many; 0: none.
        kind: such as ``A100``; "": whatever there is.
    """

    count: int = 0
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.count}" if self.kind else str(self.count)


def parse_gpus(text: str) -> Gpus:
    """Return what ``"8"``, ``"A100"`` or ``"A100:8"`` asks for on each node. Raises SettingsError."""
    match = re.fullmatch(r"(?:([A-Za-z][\w-]*)(?::(\d+))?|(\d+))", text.strip())
    if match is None:
        raise SettingsError(f"--gpus {text}: use a number for each node, or a kind and a number: 8, A100:8")
    kind, of_kind, alone = match.groups()
    return Gpus(int(of_kind or 1), kind) if kind else Gpus(int(alone))


@dataclass(frozen=True)
class JobRequest:
    """What a job is asked to be. The same options mean the same with every engine, or the engine refuses them.

    Attributes:
        command: the program and its arguments, as for `vl run`.
        vault: URI of the vault, without a step.
        name: of the job, for the engine's lists.
        folder: the working directory here.
        home: where run folders are kept, see journal.py.
        module: the module that is `vl`.
        run_options: more options of `vl run` for the nodes.
        variables: VAULTLAYER_* variables for the nodes; never a secret.
        nodes: how many machines.
        gpus: of each.
        spot: machines that may be taken away, for less money.
        max_restarts: how often the engine starts it again after the loss of a node or of `vl run`.
        queue: where it waits for its turn.
        cluster: which of several clusters, or clouds.
        time_limit: seconds that one start may take; then it is told to end, and is started again.
        grace: seconds between being told to end and the kill.
        more: options of one engine, by name, handed on as they are.
        at: what stands behind the vault's ``@``, to go back to once; empty: the newest.
    """

    command: Sequence[str]
    vault: str
    name: str
    folder: Path
    home: Path
    module: str
    run_options: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1
    gpus: Gpus = Gpus()
    spot: bool = False
    max_restarts: int = MAX_RESTARTS
    queue: str | None = None
    cluster: str | None = None
    time_limit: float | None = None
    grace: float = 300.0
    more: Mapping[str, str] = field(default_factory=dict)
    at: str = ""


@dataclass(frozen=True)
class Job:
    """A job that an engine has taken.

    Attributes:
        engine: its name.
        id: the engine's name for it.
        name: ours.
        vault: URI of the vault; "" where it isn't known here.
        cluster: as it was asked for.
        log: the file that the engine writes its output to, where there is one.
        time: when it was submitted, in seconds since the epoch.
    """

    engine: str
    id: str
    name: str = ""
    vault: str = ""
    cluster: str | None = None
    log: str | None = None
    time: float = 0.0

    def __str__(self) -> str:
        return f"{self.engine}:{self.id}"


def missing_extra(engine: str, extra: str) -> MissingExtraError:
    """Return the error that an engine's library isn't installed."""
    return MissingExtraError(f"--on {engine} needs an extra: pip install 'vaultlayer-hf[{extra}]'")


def node_variables(request: JobRequest) -> dict[str, str]:
    """Return the variables that a node's training gets, for engines that hand nothing of this environment on."""
    grace = f"{request.grace:.0f}"
    return {"VAULTLAYER_GRACE": grace, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": grace, **request.variables}


@dataclass(frozen=True)
class JobState:
    """How a job is, as its engine says.

    Attributes:
        state: waiting, running, finished, stopped, or unknown: the engine has forgotten it.
        detail: the engine's own words.
        nodes: where it runs; "" where that isn't known.
        restarts: how often the engine has started it again; None: it doesn't say.
    """

    state: str
    detail: str = ""
    nodes: str = ""
    restarts: int | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs or will."""
        return self.state in ("waiting", "running")
