"""The command lines of a job's nodes: `vl run` on each, and torchrun under it where there are several ranks. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import JobRequest

_TORCHRUN = "torch.distributed.run"
_ITS_OWN = ("--nnodes", "--rdzv", "--master", "--node-rank", "--node_rank", "--standalone")


@dataclass(frozen=True)
class Here:
    """What a node knows of its job, as words of a shell.

    Attributes:
        node: its number, from 0.
        head: the address of node 0.
        port: a port of node 0 that is free.
        job: an id that differs from job to job.
        python: the interpreter.
    """

    node: str
    head: str
    port: str
    job: str
    python: str = "python"


def node_line(request: JobRequest, here: Here, *, timed: bool = False) -> str:
    """Return the line of a POSIX shell with which a node runs its part of a job.

    ``timed``: the engine has no time limit that a job is told of, so coreutils' timeout keeps it. It sends SIGTERM to
    `vl run` alone, ahead of the limit, and its exit code is that of `vl run`.

    Raises SettingsError for a launcher that can't be given the other nodes' whereabouts.
    """
    words = [here.python, "-m", request.module, "run", "--vault", request.vault, *request.run_options, "--"]
    if timed and request.time_limit is not None:
        words = [
            *(
                "timeout",
                "--foreground",
                "--preserve-status",
                "--signal=TERM",
                f"--kill-after={request.grace:.0f}",
            ),
            *(f"{request.time_limit - request.grace:.0f}", *words),
        ]
    return " ".join([shlex.join(words), *program(request, here)])


def program(request: JobRequest, here: Here) -> list[str]:
    """Return what `vl run` runs on a node, as words of a shell. Raises SettingsError."""
    words = list(request.command)
    ranks = max(1, request.gpus.count)
    found = _launched(words)
    if found is None and request.nodes * ranks == 1:
        return [shlex.quote(word) for word in words]
    if found is None:
        script = _python(words)
        if script is None:
            if request.nodes == 1:
                return [shlex.quote(word) for word in words]  # a launcher of its own, on one node
            raise SettingsError(
                f"on {request.nodes} nodes the command must be python, a script, or torchrun, so that the nodes find "
                f"each other: {shlex.join(words)}"
            )
        options, rest = [f"--nproc-per-node={ranks}"], script
    else:
        own, rest = found
        options = [] if any(word.startswith("--nproc") for word in own) else [f"--nproc-per-node={ranks}"]
        if any(word.startswith(_ITS_OWN) for word in own):
            return [shlex.quote(word) for word in words]
    launcher = [shlex.quote(here.python), "-m", _TORCHRUN, *options]
    if request.nodes == 1:
        launcher.append("--standalone")
    else:
        launcher += [
            f"--nnodes={request.nodes}",
            "--rdzv-backend=c10d",
            f'--rdzv-endpoint="{here.head}:{here.port}"',
            f'--rdzv-id="{here.job}"',
            # Which node holds the rendezvous torchrun guesses from the host's name, which often leads to 127.0.1.1.
            f'--rdzv-conf="is_host=$(({here.node} == 0))"',
        ]
    return [*launcher, *(shlex.quote(word) for word in rest)]


def _launched(words: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """Return torchrun's own options, and those with the program behind them; None where it isn't torchrun."""
    if Path(words[0]).name == "torchrun":
        rest = list(words[1:])
    elif _is_python(words[0]) and list(words[1:3]) == ["-m", _TORCHRUN]:
        rest = list(words[3:])
    else:
        return None
    ends = [
        number for number, word in enumerate(rest) if word.endswith(".py") or word in ("-m", "--no-python")
    ]
    return rest[: ends[0]] if ends else rest, rest


def _python(words: Sequence[str]) -> list[str] | None:
    """Return a script with its arguments, or ``-m`` with a module, that a plain Python would run; None: another."""
    rest = list(words[1:]) if _is_python(words[0]) else list(words)
    return rest if rest and (rest[0].endswith(".py") or rest[0] == "-m") else None


def _is_python(word: str) -> bool:
    return Path(word).name.startswith("python")
