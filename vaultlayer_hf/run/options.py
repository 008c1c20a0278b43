"""What `vl run` was asked for, and the environment that an attempt gets for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vaultlayer_hf.run.decide.decision import Limits
from vaultlayer_hf.run.decide.restart_history import RestartHistory
from vaultlayer_hf.run.engines.reach import STARTUP
from vaultlayer_hf.run.put_aside import output_dirs
from vaultlayer_hf.run.report import AT_VARIABLE, ATTEMPT_VARIABLE, DIVIDE_VARIABLE, INSERT_VARIABLE
from vaultlayer_hf.session.output_dir import FORMER_VARIABLE


@dataclass(frozen=True)
class Options:
    """What `vl run` was asked for.

    Attributes:
        command: the program and its arguments.
        vault: URI of the vault, without a step.
        vault_source: where that is from: option, variable, config or default.
        folder: the run folder.
        insert: put the vault into Trainers that have none.
        hang_after: seconds without a sign of life that count as a hang; None: learnt from the step times.
        grace: seconds that the program has to end by itself once it was told to.
        limits: when to give up.
        environment: more variables for the program.
        quiet_stdout: what the program writes to stdout goes to stderr.
        spare: keep an interpreter ready, with its imports done, for a quick restart.
        at: what stands behind the vault's ``@``, a step or ``best``, to go back to once; empty: the newest.
    """

    command: Sequence[str]
    vault: str
    vault_source: str
    folder: Path
    insert: bool = True
    hang_after: float | None = None
    grace: float = 300.0
    limits: Limits = field(default_factory=Limits)
    environment: dict[str, str] = field(default_factory=dict)
    quiet_stdout: bool = False
    spare: bool = True
    at: str = ""


def environment(options: Options, folder: Path, history: RestartHistory, vault: str) -> dict[str, str]:
    """Return the environment of an attempt; ``vault`` is the one that ``history.at`` is about."""
    path = [str(STARTUP), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {
        **options.environment,
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        # In each attempt: a claim notes that the run has gone back, and it does so once.
        "VAULTLAYER_VAULT": f"{options.vault}@{options.at}" if options.at else options.vault,
        ATTEMPT_VARIABLE: str(folder),
        INSERT_VARIABLE: "1" if options.insert else "0",
        DIVIDE_VARIABLE: str(history.divide),
        FORMER_VARIABLE: os.pathsep.join(map(str, output_dirs(options.folder))),
    }
    if history.tight:
        found.setdefault("VAULTLAYER_LOCAL_KEEP_LAST", "1")  # only of committed checkpoints
    found.pop(AT_VARIABLE, None)
    if history.at is not None:
        found[AT_VARIABLE] = f"{vault}@{history.at}"
    return found
