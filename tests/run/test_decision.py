"""From the facts of a death to its cause and what is done about it: pure, so every case is a line here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vaultlayer_hf.run.decide.cause import Cause, Death, Error, blame, classify
from vaultlayer_hf.run.decide.decision import (
    Action,
    Limits,
    backoff,
    decide_restart,
    exit_code,
    follow,
    hang_limit,
    smallest_factor,
)
from vaultlayer_hf.run.decide.restart_history import RestartHistory
from vaultlayer_hf.run.decide.words import Words
from vaultlayer_hf.run.printed import last_traceback
from vaultlayer_hf.run.symptoms import means_full, means_memory

TRAINING = Death(
    code=1, began=True, began_at=4, step=7, committed=6, commits=(2, 4, 6), micro_batch=8, accumulation=2
)
"""An attempt that went on from step 4, trained to 7 and has failed."""
SEEN = RestartHistory(trained=True, furthest=7, committed=6)


def error(name: str, message: str = "", **more: object) -> Error:
    """An exception of rank 0."""
    return Error(0, name, message, **more)  # type: ignore[arg-type]


CASES = {
    "ends well": (Death(code=0), Cause.FINISHED, Action.DONE, 0),
    "SIGKILL in training": (replace(TRAINING, code=None, signal="SIGKILL"), Cause.KILLED, Action.RESTART, 5),
    "SIGKILL before its first step": (Death(code=None, signal="SIGKILL"), Cause.KILLED, Action.RESTART, 5),
    "SIGSEGV in training": (replace(TRAINING, code=None, signal="SIGSEGV"), Cause.CRASH, Action.RESTART, 5),
    "SIGSEGV before its first step": (Death(code=None, signal="SIGSEGV"), Cause.STARTUP, Action.STOP, 5),
    "a rank gone, the others said so": (
        replace(TRAINING, lost=(1,), errors=[error("RuntimeError", "Connection closed by peer [127.0.0.1]")]),
        Cause.KILLED, Action.RESTART, 5,
    ),
    "exception in a step": (replace(TRAINING, errors=[error("ValueError", "bad")]), Cause.CRASH, Action.RESTART, 5),
    "exception before the first step": (
        Death(code=1, began=True, began_at=4, errors=[error("ValueError")]), Cause.STARTUP, Action.STOP, 5,
    ),
    "wrong arguments": (Death(code=2), Cause.STARTUP, Action.STOP, 5),
    "CUDA out of memory": (
        replace(TRAINING, errors=[error("torch.OutOfMemoryError", memory=True)]), Cause.MEMORY, Action.RESTART, 5,
    ),
    "CUDA out of memory in an evaluation": (
        replace(TRAINING, errors=[error("torch.OutOfMemoryError", memory=True, evaluating=True)]),
        Cause.MEMORY, Action.STOP, 5,
    ),
    "other nodes have a smaller micro-batch": (
        Death(code=1, errors=[error("vaultlayer_hf.trainer.micro_batches.OtherMicroBatchError", divide=2)]),
        Cause.MICRO_BATCH, Action.RESTART, 5,
    ),
    "a rank of another node gone before the first step": (
        Death(code=1, began=True, elsewhere=True, errors=[error("RuntimeError", "Connection closed by peer")]),
        Cause.KILLED, Action.RESTART, 5,
    ),
    "out of memory while loading": (
        Death(code=1, errors=[error("MemoryError", memory=True)]), Cause.STARTUP, Action.STOP, 5,
    ),
    "the kernel's OOM killer": (
        replace(TRAINING, code=None, signal="SIGKILL", oom_kills=1), Cause.HOST_MEMORY, Action.RESTART, 5,
    ),
    "loss is nan": (
        replace(TRAINING, nonfinite=6, errors=[error("vaultlayer_hf.run.inside.watch.NonFiniteLossError")]),
        Cause.NONFINITE, Action.RESTART, 5,
    ),
    "hang": (replace(TRAINING, code=None, signal="SIGKILL", silent=99.0), Cause.HANG, Action.RESTART, 5),
    "disk full": (replace(TRAINING, errors=[error("OSError", full=True)]), Cause.DISK_FULL, Action.RESTART, 5),
    "the output folder isn't empty": (
        Death(code=1, errors=[error("ValueError", not_empty=True)], left=("/out",)), Cause.NOT_EMPTY, Action.RESTART, 5,
    ),
    "somebody else's output folder isn't empty": (
        Death(code=1, errors=[error("ValueError", not_empty=True)]), Cause.STARTUP, Action.STOP, 5,
    ),
    "preempted": (replace(TRAINING, code=75, preempted=True), Cause.PREEMPTED, Action.RESTART, 5),
    "told to end": (replace(TRAINING, code=None, signal="SIGTERM", told="SIGTERM"), Cause.TOLD, Action.LEAVE, 75),
    "Ctrl-C": (replace(TRAINING, code=None, signal="SIGINT", told="SIGINT"), Cause.TOLD, Action.LEAVE, 130),
    "told, and it ends well": (Death(code=0, told="SIGTERM"), Cause.FINISHED, Action.DONE, 0),
    "told, and it ends well within its training": (
        replace(TRAINING, code=0, signal=None, told="SIGTERM"), Cause.TOLD, Action.LEAVE, 75,
    ),
    "told, and its training was over": (
        replace(TRAINING, code=0, signal=None, told="SIGTERM", over=True), Cause.FINISHED, Action.DONE, 0,
    ),
    "ends well, but for its last upload": (Death(code=0, unfinished=True), Cause.UNFINISHED, Action.STOP, 3),
    "vault out of reach": (
        Death(code=1, errors=[error("vaultlayer_hf.errors.VaultUnreachableError")]), Cause.STORE, Action.RESTART, 3,
    ),
    "vault refuses": (
        Death(code=1, errors=[error("vaultlayer_hf.errors.VaultDeniedError")]), Cause.REFUSED, Action.STOP, 3,
    ),
    "a key of another vault": (
        Death(code=1, errors=[error("vaultlayer_hf.errors.SignatureError")]), Cause.REFUSED, Action.STOP, 1,
    ),
    "fenced": (replace(TRAINING, errors=[error("vaultlayer_hf.errors.FencedError")]), Cause.FENCED, Action.STOP, 4),
    "another model": (
        Death(code=1, errors=[error("vaultlayer_hf.errors.WrongModelError")]), Cause.REFUSED, Action.STOP, 1,
    ),
    "a setting": (
        Death(code=1, errors=[error("vaultlayer_hf.errors.SettingsError")]), Cause.REFUSED, Action.STOP, 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_death_has_its_cause_and_its_decision(name) -> None:
    """What is known of a death leads to the cause, the decision and the exit code that the table promises."""
    death, cause, action, code = CASES[name]
    decision = decide_restart(death, RestartHistory())
    assert (decision.cause, decision.action) == (cause, action)
    assert decision.detail
    assert decision.reason
    assert exit_code(decision, death) == code


def test_a_start_that_worked_before_is_tried_again() -> None:
    """An error before the first step ends a run at once only where no attempt has trained yet."""
    death = Death(code=1, errors=[error("OSError", "port in use")])
    assert decide_restart(death, RestartHistory()).action is Action.STOP
    assert decide_restart(death, SEEN).action is Action.RESTART


def test_a_vault_that_let_the_run_in_before_is_tried_again() -> None:
    """What hands out credentials may be down for a while: that ends a run only where no attempt was let in yet."""
    death = Death(code=1, errors=[error("vaultlayer_hf.errors.VaultDeniedError")])
    assert decide_restart(death, RestartHistory()).action is Action.STOP
    found = decide_restart(death, SEEN)
    assert (found.cause, found.action, exit_code(found, death)) == (Cause.STORE, Action.RESTART, 3)


def test_a_smaller_micro_batch_keeps_the_global_batch() -> None:
    """Out of memory divides the micro-batch by its least factor and multiplies accumulation; at 1 it stops."""
    oom = replace(TRAINING, errors=[error("torch.OutOfMemoryError", memory=True)])
    history, micro, accumulation = SEEN, 12, 2
    seen = []
    while True:
        death = replace(oom, micro_batch=micro, accumulation=accumulation)
        decision = decide_restart(death, history)
        if decision.action is Action.STOP:
            break
        assert f"from {micro} to" in decision.reason
        history = follow(death, history, decision)
        micro, accumulation = 12 // history.divide, 2 * history.divide
        seen.append((micro, accumulation))
    assert seen == [(6, 4), (3, 8), (1, 24)]
    assert "is 1 already" in decision.reason
    assert [smallest_factor(size) for size in (8, 9, 7, 1, 0)] == [2, 3, 7, None, None]


def test_a_nan_walks_back_behind_it_and_not_for_ever() -> None:
    """The checkpoint of the bad step isn't used, each return to the bad step goes one further back, then it stops."""
    death = replace(TRAINING, nonfinite=6, step=7, commits=(2, 4, 6))
    first = decide_restart(death, SEEN)
    assert first.at == 4
    history = follow(death, SEEN, first)
    again = replace(death, began_at=4)
    second = decide_restart(again, history)
    assert second.at == 2
    history = follow(again, history, second)
    third = decide_restart(replace(death, began_at=2), history)
    assert third.action is Action.STOP
    assert "older than step 2" in third.reason
    many = Death(
        code=1, began=True, began_at=18, step=21, committed=20, commits=tuple(range(2, 22, 2)), nonfinite=20
    )
    history = RestartHistory(trained=True)
    for _ in range(3):
        decision = decide_restart(many, history, Limits(walk_back=3))
        assert decision.action is Action.RESTART
        history = follow(many, history, decision)
        many = replace(many, began_at=decision.at)
    assert decide_restart(many, history, Limits(walk_back=3)).action is Action.STOP


def test_the_step_walked_back_to_holds_until_something_is_committed() -> None:
    """An attempt that dies before its first commit is followed by one from the same step, not from the bad one."""
    death = replace(TRAINING, nonfinite=6)
    history = follow(death, SEEN, decide_restart(death, SEEN))
    killed = replace(TRAINING, code=None, signal="SIGKILL", began_at=4, step=5)
    decision = decide_restart(killed, history)
    assert decision.at == 4
    history = follow(killed, history, decision)
    assert history.at == 4
    later = replace(killed, committed=6, committed_here=True)
    assert follow(later, history, decide_restart(later, history)).at is None


def test_without_progress_it_gives_up() -> None:
    """Attempts that get no further are counted and waited for longer; a commit or a new step starts anew."""
    history, waits = SEEN, []
    death = replace(TRAINING, code=None, signal="SIGKILL", began_at=6, step=7)
    while (decision := decide_restart(death, history)).action is Action.RESTART:
        waits.append(decision.wait)
        history = follow(death, history, decision)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert "5 attempts in a row" in decision.reason
    further = replace(death, step=8)
    assert decide_restart(further, history).action is Action.RESTART
    assert follow(further, history, decide_restart(further, history)).stuck == 0
    committed = replace(death, committed=8, committed_here=True)
    assert follow(committed, history, decide_restart(committed, history)).stuck == 0
    assert [backoff(stuck, Limits(longest=5.0)) for stuck in range(5)] == [0.0, 1.0, 2.0, 4.0, 5.0]


def test_the_same_error_at_the_same_step_ends_it_sooner() -> None:
    """What fails in the same way three times will go on doing so, and is shown instead of tried again."""
    death = replace(TRAINING, errors=[error("ValueError", "bad row")])
    history = RestartHistory()
    actions = []
    for _ in range(3):
        decision = decide_restart(death, history)
        actions.append(decision.action)
        history = follow(death, history, decision)
    assert actions == [Action.RESTART, Action.RESTART, Action.STOP]
    assert "3 times in a row" in decision.reason


def test_the_rank_that_failed_first_is_blamed() -> None:
    """Errors that only say that another rank is gone never hide the one that began it."""
    first = Error(1, "ValueError", "the cause", time=5.0)
    errors = [
        Error(0, "RuntimeError", "Connection closed by peer", time=4.0),
        first,
        Error(2, "KeyError", time=6.0),
    ]
    assert blame(errors) is first
    assert blame(errors[:1]) is None
    assert classify(replace(TRAINING, errors=errors[:1], lost=(1,))) is Cause.KILLED


def test_what_libraries_say_of_memory_and_disks_is_understood() -> None:
    """The texts of torch, safetensors and the kernel are told apart from other errors of the same classes."""
    assert means_memory("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB")
    assert means_memory("RuntimeError", "[enforce fail] . DefaultCPUAllocator: can't allocate memory")
    assert means_memory("OSError", "", 12)
    assert not means_memory("ValueError", "out of memory")
    assert means_full("OSError", "[Errno 28] No space left on device", 28)
    assert means_full(
        "SafetensorError", "Error while serializing: I/O error: No space left on device (os error 28)"
    )
    assert means_full("RuntimeError", "[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")
    assert means_full("RuntimeError", "basic_ios::clear: iostream error")
    assert not means_full("RuntimeError", "shape mismatch")


def test_a_hang_is_learnt_from_the_steps() -> None:
    """Ten times the longest pause seen, never less than five minutes; half an hour where nothing is known yet."""
    assert hang_limit([]) == 1800.0
    assert hang_limit([0.1, 0.2, 0.1]) == 300.0
    assert hang_limit([0.1, 50.0, 0.1]) == 500.0


def test_the_smallest_micro_batch_of_all_nodes() -> None:
    """What another node divides by is taken over, and what memory asks for later comes on top of it."""
    asked = Death(code=1, errors=[error("OtherMicroBatchError", divide=4)])
    first = decide_restart(asked, SEEN)
    assert first.divide == 4
    history = follow(asked, SEEN, first)
    memory = replace(TRAINING, micro_batch=2, errors=[error("torch.OutOfMemoryError", memory=True)])
    assert decide_restart(memory, history).divide == 8
    assert decide_restart(asked, replace(SEEN, divide=8)).divide == 8


def test_a_launchers_own_error_is_not_what_ended_its_process() -> None:
    """`accelerate launch` says with a traceback that a signal has ended its process: it was killed, maybe for memory.

    Where that process has shown an error of its own before, it is that one.
    """
    launchers = (
        'Traceback (most recent call last):\n  File "launch.py", line 1, in simple_launcher\n'
        "subprocess.CalledProcessError: Command '['python', 'train.py']' {}.\n"
    )
    killed = last_traceback(launchers.format("died with <Signals.SIGKILL: 9>"))
    assert killed is not None
    began = {"code": 1, "errors": (killed,), "began": True, "step": 5, "lost": (0,)}
    assert classify(Death(**began)) is Cause.KILLED
    assert classify(Death(**began, oom_kills=1)) is Cause.HOST_MEMORY
    assert classify(Death(code=1, errors=(killed,))) is Cause.STARTUP
    own = 'Traceback (most recent call last):\n  File "train.py", line 1\nValueError: a bad row\n'
    shown = last_traceback(own + launchers.format("returned non-zero exit status 1"))
    assert shown is not None
    assert (shown.type, shown.message) == ("ValueError", "a bad row")
    script = last_traceback(launchers.format("returned non-zero exit status 1"))
    assert script is not None
    assert script.type == "subprocess.CalledProcessError"


def test_of_an_error_the_first_sentence_is_repeated() -> None:
    """What it means and what to do stands above, in what the program has printed."""
    told = "file:///v: read-only file system. Nothing was trained: it isn't known. Check the mount."
    unreachable = replace(error("vaultlayer_hf.errors.VaultUnreachableError"), message=told)
    detail = decide_restart(Death(code=1, errors=[unreachable]), RestartHistory()).detail
    assert detail.endswith(
        "raised VaultUnreachableError before its first step: file:///v: read-only file system"
    )


def test_each_of_several_trainings_makes_progress_of_its_own() -> None:
    """A fold whose steps begin anew isn't stuck behind an earlier one; dying in both by turns is no progress."""
    first = replace(TRAINING, code=None, signal="SIGKILL", vault="v/fold-0", step=90, committed=80)
    second = replace(first, vault="v/fold-1", step=9, committed=8)
    passing = replace(first, step=None)  # killed while the end of the first one was brought back
    history, stuck = RestartHistory(), []
    for death in (first, second, second, passing, replace(second, step=10), passing):
        history = follow(death, history, decide_restart(death, history))
        stuck.append(history.stuck)
    assert stuck == [0, 0, 1, 2, 0, 1]
    assert (history.vault, history.furthest) == ("v/fold-0", 90)
    assert history.for_vault("v/fold-1").furthest == 10
    walked = replace(second, nonfinite=8, errors=[error("NonFiniteLossError")])
    decision = decide_restart(walked, history)
    assert follow(walked, history, decision).for_vault("v/fold-0").at is None


def test_ranks_that_were_told_to_end_have_not_died_without_a_word() -> None:
    """torchrun ends with 1 after a signal, and its ranks leave no error: told to end, they have only ended."""
    told = replace(TRAINING, lost=(0, 1), told="SIGTERM")
    assert Words(told, Cause.TOLD, None).detail() == "it ended after step 7"
    gone = replace(TRAINING, lost=(0, 1))
    assert Words(gone, Cause.KILLED, None).detail() == "ranks 0, 1 died without a word after step 7"
