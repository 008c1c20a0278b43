"""What to do about the death of an attempt. Pure: facts in, a decision with its reason out.

    death (facts) ──classify──> cause ──decide, with the history──> decision ──follow──> history

| cause | decision |
|---|---|
| finished | done |
| unfinished | stop: the training is over, and its last checkpoint isn't in the vault |
| told | leave: `vl run` itself was told to end |
| preempted | restart, while the machine is still there |
| fenced, refused | stop: another writer has the vault, or a person must change something |
| startup | stop: the first attempt failed before its first step |
| memory, host-memory | restart with a smaller micro-batch and more accumulation, the global batch stays; stop at 1 |
| memory in an evaluation | stop: its micro-batch is another one |
| micro-batch | restart with the smallest micro-batch of all nodes, as memory has run out on another one |
| nonfinite | restart from the newest checkpoint before the loss was nan or inf; stop after ``walk_back`` times |
| hang, killed | restart |
| disk-full | restart once something could be deleted, else stop |
| not-empty | restart with what earlier attempts left in the output folder put aside, once |
| store | restart with back-off: the vault couldn't be read, for a reason that may pass |
| crash | restart; stop where the same error ends the same step ``same`` times in a row |

Whatever the cause: stop after ``stuck`` attempts in a row without progress. An attempt has made progress where it
committed a later checkpoint than any attempt before, or trained a later step, of the vault that it ended with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from vaultlayer_hf.run.decide.cause import DENIED, USAGE, Cause, Death, Error, blame, classify
from vaultlayer_hf.run.decide.restart_history import RestartHistory
from vaultlayer_hf.run.decide.words import Words, told_by


class Action(StrEnum):
    """What `vl run` does next."""

    DONE = "done"
    RESTART = "restart"
    STOP = "stop"
    LEAVE = "leave"


@dataclass(frozen=True)
class Limits:
    """When to give up, and how long to wait.

    Attributes:
        stuck: attempts in a row without progress.
        same: of these, with the same error after the same step.
        walk_back: walks back for a loss that is nan or inf, in a row.
        backoff: seconds before the second restart without progress; it doubles with each further one.
        longest: seconds that this can grow to.
    """

    stuck: int = 5
    same: int = 3
    walk_back: int = 3
    backoff: float = 1.0
    longest: float = 60.0


@dataclass(frozen=True)
class RestartDecision:
    """What to do, and why.

    Attributes:
        action: restart, stop, leave or done.
        cause: of the death.
        detail: what happened, in one sentence.
        reason: why this is done about it, in one sentence.
        wait: seconds before the restart.
        divide: micro-batches are divided by this from now on.
        at: the step to go on from; None: the newest checkpoint.
        clean: free disk space first, and stop where there is nothing to delete.
        aside: put output folders aside first, from now on, and stop where there is nothing in them.
        blame: the exception that counts.
    """

    action: Action
    cause: Cause
    detail: str
    reason: str
    wait: float = 0.0
    divide: int = 1
    at: int | None = None
    clean: bool = False
    aside: bool = False
    blame: Error | None = field(default=None, compare=False)

    def stopped(self, reason: str) -> RestartDecision:
        """Return the decision to stop in place of this one, about the same death."""
        return RestartDecision(Action.STOP, self.cause, self.detail, reason, blame=self.blame)


def decide_restart(death: Death, history: RestartHistory, limits: Limits | None = None) -> RestartDecision:
    """Return what to do about a death. Never raises."""
    limits, history = limits or Limits(), history.for_vault(death.vault)
    cause = classify(death, history.trained)
    error = blame(death.errors)
    say = Words(death, cause, error)
    after = _counted(death, history, cause, error)

    def stop(reason: str) -> RestartDecision:
        return RestartDecision(Action.STOP, cause, say.detail(), reason, blame=error)

    if cause is Cause.FINISHED:
        return RestartDecision(Action.DONE, cause, say.detail(), "the program has ended well")
    if cause is Cause.UNFINISHED:
        # Not started again: what the script did behind its training would be done twice.
        return stop(
            "mend what kept it out, which the error above names; the same command on this machine then uploads it, or "
            "trains what is missing"
        )
    if cause is Cause.TOLD:
        reason = f"vl run was sent {told_by(death.told)}: the same command goes on from {say.checkpoint()}"
        return RestartDecision(Action.LEAVE, cause, say.detail(), reason)
    if cause is Cause.STARTUP:
        return stop("no attempt has trained a step yet, so a restart would fail in the same way")
    if cause is Cause.NOT_EMPTY and history.aside:
        return stop("the output folder was put aside already, so this needs a change in the script")
    if cause is Cause.REFUSED:
        return stop("starting it again changes nothing: the message says what to change")
    if cause is Cause.FENCED:
        return stop(
            "the vault isn't this run's any more, and the error says whose it is: a restart would take it back"
        )
    if after.stuck >= limits.stuck:
        return stop(f"{after.stuck} attempts in a row have made no progress beyond step {after.furthest}")
    if cause is Cause.CRASH and after.same >= limits.same:
        return stop(
            f"the same error has ended the run after step {death.step or 0} {after.same} times in a row"
        )
    if cause is Cause.NONFINITE:
        return _walk_back(death, history, after, limits, say)
    divide, reason = history.divide, f"it goes on from {say.checkpoint(after.at)}"
    if cause is Cause.MEMORY and error is not None and error.evaluating:
        return stop(
            "it was in an evaluation, which the training's micro-batch has no part in: set a smaller "
            "per_device_eval_batch_size, or eval_accumulation_steps"
        )
    if cause in (Cause.MEMORY, Cause.HOST_MEMORY):
        factor = smallest_factor(death.micro_batch)
        if factor is None:
            left = "the micro-batch is 1 already" if death.micro_batch == 1 else "the micro-batch isn't known"
            return stop(f"{left}, so it can't be made smaller")
        divide *= factor
        reason = (
            f"the micro-batch goes from {death.micro_batch} to {death.micro_batch // factor} and accumulation from "
            f"{death.accumulation} to {death.accumulation * factor}, so the global batch stays the same; {reason}"
        )
    if cause is Cause.MICRO_BATCH and error is not None:
        divide = max(divide, error.divide)
        reason = f"on all nodes the micro-batch is the script's divided by {divide}; {reason}"
    if cause is Cause.NOT_EMPTY:
        reason = f"what earlier attempts left there is put aside until it trains; {reason}"
    if cause is Cause.DISK_FULL:
        reason = f"local checkpoints that the vault holds, all but the newest, are deleted first; {reason}"
    return RestartDecision(
        Action.RESTART,
        cause,
        say.detail(),
        reason,
        wait=backoff(after.stuck, limits),
        divide=divide,
        at=after.at,
        clean=cause is Cause.DISK_FULL,
        aside=history.aside or cause is Cause.NOT_EMPTY,
        blame=error,
    )


def follow(death: Death, history: RestartHistory, decision: RestartDecision) -> RestartHistory:
    """Return the history after a death and the decision about it."""
    history = history.for_vault(death.vault)
    after = _counted(death, history, decision.cause, blame(death.errors))
    if decision.cause is Cause.NONFINITE:
        reached = decision.at or 0  # what was reached beyond it doesn't count any more
        return replace(
            after,
            walks=history.walks + 1,
            bad=death.nonfinite,
            at=decision.at,
            furthest=reached,
            committed=reached,
        )
    if after.bad is not None and (death.step or 0) > after.bad:
        after = replace(after, walks=0, bad=None)
    tight = history.tight or decision.cause is Cause.DISK_FULL
    return replace(after, divide=decision.divide, at=decision.at, tight=tight, aside=decision.aside)


def exit_code(decision: RestartDecision, death: Death) -> int:
    """Return the exit code of `vl run`: those of cli.common.ExitCode.

    0: the program has ended well. 2: a setting must be changed. 3: the store can't be reached, or refuses. 4: fenced.
    5: the training failed, and starting it again doesn't help. 75: told to end, the same command goes on. 130: Ctrl-C.
    """
    if decision.action is Action.DONE:
        return 0
    if decision.action is Action.LEAVE:
        return 130 if death.told == "SIGINT" else 75
    if decision.cause is Cause.REFUSED:
        what = decision.blame.type if decision.blame is not None else ""
        return 2 if what.endswith(USAGE) else 3 if what.endswith(DENIED) else 1
    return {Cause.STORE: 3, Cause.UNFINISHED: 3, Cause.FENCED: 4}.get(decision.cause, 5)


def backoff(stuck: int, limits: Limits) -> float:
    """Return seconds to wait before a restart: none after progress, then ``backoff``, doubling up to ``longest``."""
    return 0.0 if stuck == 0 else min(limits.longest, limits.backoff * 2.0 ** min(stuck - 1, 30))


def smallest_factor(size: int) -> int | None:
    """Return the least number above 1 that divides a micro-batch without a rest: 2 for an even one; None at 1."""
    return next((factor for factor in range(2, size + 1) if size % factor == 0), None)


def hang_limit(gaps: Sequence[float], *, least: float = 300.0, first: float = 1800.0) -> float:
    """Return for how many seconds a rank may show no sign of life.

    Ten times the longest pause between two signs of life seen so far, at least ``least``; ``first`` where fewer
    than three are known: loading, compiling and the first step take as long as they take.
    """
    return first if len(gaps) < 3 else max(least, 10.0 * max(gaps))


def _counted(death: Death, history: RestartHistory, cause: Cause, error: Error | None) -> RestartHistory:
    furthest, committed = max(history.furthest, death.step or 0), max(history.committed, death.committed or 0)
    forward = furthest > history.furthest or (death.committed_here and committed > history.committed)
    # A smaller micro-batch is a change: what comes after it isn't the same again.
    changed = cause in (Cause.MEMORY, Cause.HOST_MEMORY) and (death.micro_batch or 0) > 1
    last = (error.type if error is not None else "", death.step)
    same = history.same + 1 if error is not None and last == history.last else 1
    return replace(
        history,
        trained=history.trained or death.trained or death.by_another_node,
        furthest=furthest,
        committed=committed,
        stuck=0 if forward or changed else history.stuck + 1,
        same=same,
        last=last,
        # Once a walked-back attempt has committed, the checkpoints that it left out count no more.
        at=None if death.committed_here else history.at,
    )


def _walk_back(
    death: Death, history: RestartHistory, after: RestartHistory, limits: Limits, say: Words
) -> RestartDecision:
    bad = death.nonfinite or 0
    detail = say.detail()
    walks = history.walks + 1
    if walks > limits.walk_back:
        reason = f"walking back {limits.walk_back} times hasn't helped: lower the learning rate or look at the data"
        return RestartDecision(Action.STOP, Cause.NONFINITE, detail, reason, blame=say.error)
    good = [step for step in death.commits if step < bad]
    before = history.at if history.at is not None else death.began_at
    if history.walks and before:  # that one led here again
        good = [step for step in good if step < before]
    if not good and death.commits:
        reason = f"the vault holds no checkpoint that is older than step {before or bad}"
        return RestartDecision(Action.STOP, Cause.NONFINITE, detail, reason, blame=say.error)
    at = good[-1] if good else None
    where = f"the checkpoint of step {at}" if at is not None else "the start: nothing is committed yet"
    return RestartDecision(
        Action.RESTART,
        Cause.NONFINITE,
        detail,
        f"it walks back to {where} (time {walks} of {limits.walk_back})",
        wait=backoff(after.stuck, limits),
        divide=history.divide,
        at=at,
        blame=say.error,
    )
