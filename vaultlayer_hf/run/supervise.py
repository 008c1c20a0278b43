"""The loop of `vl run`: attempt -> facts -> cause and decision -> act, until there is nothing more to start."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from vaultlayer_hf.base.versions import __version__
from vaultlayer_hf.run.attempts import Attempts, Notice
from vaultlayer_hf.run.decide.cause import Cause, Death
from vaultlayer_hf.run.decide.decision import (
    Action,
    RestartDecision,
    decide_restart,
    exit_code,
    follow,
)
from vaultlayer_hf.run.decide.lines import next_step
from vaultlayer_hf.run.decide.restart_history import RestartHistory
from vaultlayer_hf.run.decide.words import told_by
from vaultlayer_hf.run.free_space import free_space_of_attempt
from vaultlayer_hf.run.journal import FORMAT_VERSION, Journal, attempt_folder, notes_of, read_notes
from vaultlayer_hf.run.options import Options
from vaultlayer_hf.run.program import program_of
from vaultlayer_hf.run.put_aside import bring_all_back, output_dirs, put_aside
from vaultlayer_hf.run.received_signals import receive_signals


@dataclass(frozen=True)
class RunOutcome:
    """How `vl run` ended.

    Attributes:
        decision: the last one.
        death: what it was about.
        attempts: how many there were.
        number: of the last one, in the run folder; larger where earlier starts are in it, too.
        seconds: since the begin.
        code: the exit code that says so.
        shown: the program itself has shown the traceback of what ended it, as its last words.
    """

    decision: RestartDecision
    death: Death
    attempts: int
    number: int
    seconds: float
    code: int
    shown: bool


def supervise(options: Options, say: Callable[[str], None]) -> RunOutcome:
    """Run a program until it has ended well, or is better not started again.

    ``say`` is told one line for each decision. Everything is written to the run folder's journal, too.
    Raises OSError where the run folder can't be written or the program can't be started.
    """
    journal = Journal(options.folder)
    begin = time.monotonic()
    _note_begin(journal, options)

    def notice(topic: str, message: str) -> None:
        journal.write("notice", topic=topic, message=message)
        say(message)

    history, vault = RestartHistory(), options.vault
    with (
        receive_signals() as received,
        closing(Attempts(options, journal, received, notice)) as attempts,
        ExitStack() as at_end,
    ):
        while True:
            death = attempts.make(history, vault)
            decision = decide_restart(death, history, options.limits)
            if decision.action is Action.RESTART:
                decision = _prepare(decision, history, journal, options, notice)
            if decision.aside:  # the script may end, or be told to, before it trains
                at_end.callback(bring_all_back, options.folder)
            _note_death(journal, death, decision)
            history, vault = follow(death, history, decision), death.vault or vault
            if decision.action is not Action.RESTART:
                break
            say(f"attempt {journal.attempt}: {decision.detail}; {next_step(decision)}")
            if not received.none_for(decision.wait):
                death = replace(death, told=received.ending)
                decision = RestartDecision(
                    Action.LEAVE,
                    Cause.TOLD,
                    decision.detail,
                    f"vl run was sent {told_by(received.ending)}: the same command goes on with the run",
                )
                break
    if decision.cause is Cause.FINISHED and options.insert:
        _say_what_is_not_kept(options, journal, death, notice)
    outcome = RunOutcome(
        decision,
        death,
        attempts.count,
        journal.attempt,
        time.monotonic() - begin,
        exit_code(decision, death),
        _shown(decision, attempts.output),
    )
    journal.write(
        "end",
        code=outcome.code,
        reason=decision.reason,
        attempts=outcome.attempts,
        step=death.step,
        seconds=outcome.seconds,
    )
    return outcome


def _note_begin(journal: Journal, options: Options) -> None:
    journal.write(
        "begin",
        format_version=FORMAT_VERSION,
        command=list(options.command),
        program=program_of(options.command),
        cwd=os.getcwd(),
        vault=options.vault,
        vault_source=options.vault_source,
        pid=os.getpid(),
        host=socket.gethostname(),
        vl=__version__,
    )


def _shown(decision: RestartDecision, output: str) -> bool:
    if decision.blame is None:
        return False
    last = decision.blame.traceback.strip().rpartition("\n")[2]
    return last in output[-1500 - len(last) :]


def _note_death(journal: Journal, death: Death, decision: RestartDecision) -> None:
    error = decision.blame
    journal.write(
        "death",
        cause=decision.cause.value,
        code=death.code,
        signal=death.signal,
        seconds=death.seconds,
        step=death.step,
        began_at=death.began_at,
        committed=death.committed,
        error=f"{error.type}: {error.message}" if error is not None else "",
        rank=error.rank if error is not None else next(iter(death.lost), None),
        detail=decision.detail,
        traceback=error.traceback if error is not None else "",
    )
    journal.write(
        "decision",
        action=decision.action.value,
        reason=decision.reason,
        wait=decision.wait,
        divide=decision.divide,
        at=decision.at,
    )


def _prepare(
    decision: RestartDecision, history: RestartHistory, journal: Journal, options: Options, notice: Notice
) -> RestartDecision:
    """Do what has to come before a restart; return another decision where that can't be done."""
    if decision.clean:
        decision = _clean(decision, journal, options, notice)
    if (decision.aside or history.aside) and decision.action is Action.RESTART:
        decision = _put_aside(decision, options, notice)
    return decision


def _clean(decision: RestartDecision, journal: Journal, options: Options, notice: Notice) -> RestartDecision:
    if free_space_of_attempt(attempt_folder(options.folder, journal.attempt), options.vault, notice):
        return decision
    return decision.stopped(
        "nothing could be deleted that the vault has, so a restart would fill the disk again: free some space"
    )


def _put_aside(decision: RestartDecision, options: Options, notice: Notice) -> RestartDecision:
    moved = put_aside(output_dirs(options.folder), notice, keep=[Path.cwd(), options.folder])
    if moved or decision.cause is not Cause.NOT_EMPTY:
        return decision
    return decision.stopped(
        "nothing there is from an earlier attempt of this run, so it stays: name another output folder"
    )


def _say_what_is_not_kept(options: Options, journal: Journal, death: Death, notice: Notice) -> None:
    """Say that a program has ended well, and that its vault holds nothing of it."""
    if not notes_of(read_notes(attempt_folder(options.folder, journal.attempt)), "train"):
        notice(
            "untouched",
            "no transformers.Trainer was trained, so nothing is in the vault: for a loop of your own, see `vl init`",
        )
    elif death.committed is None:
        notice(
            "uncommitted",
            "the training has ended, and no checkpoint of it is in the vault: it has saved none, or none could be "
            "committed (vl logs says which)",
        )
