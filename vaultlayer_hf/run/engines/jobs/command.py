"""The command lines of a job's nodes: `vl run` on each, and torchrun under it where there are several ranks. Pure."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import JobRequest

_TORCHRUN = "torch.distributed.run"
_LAUNCHERS = ("accelerate", "deepspeed")
"""Programs that start a rank for each GPU by themselves."""
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
    vault = f"{request.vault}@{request.at}" if request.at else request.vault
    words = [here.python, "-m", request.module, "run", "--vault", vault, *request.run_options, "--"]
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
    if (found := _launched(words)) is not None:
        own, rest = found
        options = [] if any(word.startswith("--nproc") for word in own) else [f"--nproc-per-node={ranks}"]
        if any(word.startswith(_ITS_OWN) for word in own):
            return [shlex.quote(word) for word in words]
    else:
        script = _python(words)
        if request.nodes == 1 and (ranks == 1 or script is None):
            return [shlex.quote(word) for word in words]  # one rank, or a launcher of its own
        if script is None:
            raise SettingsError(
                f"on {request.nodes} nodes the command must be python, a script, or torchrun, so that the nodes find "
                f"each other: {shlex.join(words)}"
            )
        options, rest = [f"--nproc-per-node={ranks}"], script
    launcher = [*(shlex.quote(word) for word in _torchrun(words[0], here)), *options]
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


def started_once(request: JobRequest) -> str | None:
    """Return a sentence where a node has several GPUs, and the command isn't known to start a rank for each."""
    words = list(request.command)
    if request.gpus.count < 2 or _launched(words) or _python(words) or Path(words[0]).name in _LAUNCHERS:
        return None
    return (
        f"{shlex.join(words)} is started once on each node: for its {request.gpus.count} GPUs it must start ranks "
        "itself, as torchrun does, which python train.py gets"
    )


def _torchrun(first: str, here: Here) -> list[str]:
    """Return how torchrun is started: from the environment that a command's first word names by a path, if it does."""
    if os.sep not in first or not (_is_python(first) or Path(first).name == "torchrun"):
        return [here.python, "-m", _TORCHRUN]
    return [first, "-m", _TORCHRUN] if _is_python(first) else [first]


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
    """Return what torchrun is given in the place of a plain Python's command; None where it is another's.

    That is a script with its arguments, or ``-m`` with a module. torchrun starts Python with ``-u`` and no other option
    of the interpreter; where there are some, it is told the whole command.
    """
    if not _is_python(words[0]):
        return list(words) if words[0].endswith(".py") else None
    options, rest = [], list(words[1:])
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c", "-"):
        options.append(rest.pop(0))
        if options[-1] in ("-X", "-W") and rest:
            options.append(rest.pop(0))
    if not rest or not (rest[0].endswith(".py") or rest[0] == "-m"):
        return None
    return rest if set(options) <= {"-u"} else ["--no-python", words[0], *options, *rest]


def _is_python(word: str) -> bool:
    return Path(word).name.startswith("python")
