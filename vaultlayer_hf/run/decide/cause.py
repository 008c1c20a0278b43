"""What ended an attempt. Pure: facts in, a cause out. What is done about it: decision.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """What ended an attempt."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    TOLD = "told"
    PREEMPTED = "preempted"
    FENCED = "fenced"
    REFUSED = "refused"
    STARTUP = "startup"
    MEMORY = "memory"
    HOST_MEMORY = "host-memory"
    MICRO_BATCH = "micro-batch"
    NONFINITE = "nonfinite"
    HANG = "hang"
    KILLED = "killed"
    DISK_FULL = "disk-full"
    NOT_EMPTY = "not-empty"
    STORE = "store"
    CRASH = "crash"


@dataclass(frozen=True)
class Error:
    """An exception that a rank has noted.

    Attributes:
        rank: whose.
        type: its class's qualified name.
        message: its text.
        traceback: as Python prints it.
        memory: out of memory, of the host or of a device.
        full: no space left on a disk.
        not_empty: the script wants an output folder without files in it.
        time: seconds since the epoch.
        evaluating: it was raised in a Trainer's evaluation.
        divide: by what all nodes must divide their micro-batches; 1 where the error isn't about that.
    """

    rank: int
    type: str
    message: str = ""
    traceback: str = ""
    memory: bool = False
    full: bool = False
    not_empty: bool = False
    time: float = 0.0
    divide: int = 1
    evaluating: bool = False


@dataclass(frozen=True)
class Death:
    """What is known of an attempt that has ended.

    Attributes:
        code: exit code of what was started; None where a signal ended it.
        signal: that signal's name.
        errors: of all ranks.
        began: a Trainer's train() was entered.
        began_at: the step that it went on from; None where it didn't get there.
        step: the last step that was trained; None: none.
        committed: the newest committed step; None: none.
        committed_here: this attempt has committed a checkpoint.
        commits: steps of the live checkpoints, oldest first.
        nonfinite: the first step with a loss that was nan or inf.
        silent: seconds without a sign of life for which it was killed; None: it wasn't.
        told: name of the signal that `vl run` has been sent.
        oom_kills: how often the kernel has killed for memory meanwhile.
        lost: ranks that ended without a word.
        preempted: the exit code says that a preemption was drained.
        micro_batch, accumulation: of the Trainer; 0 where they aren't known.
        seconds: since the start.
        vault: the URI of the vault that it had.
        unfinished: its training is over, and its last checkpoint isn't in the vault.
        over: its newest training has noted its end.
        hidden: the exit code says that all is well, and a rank has died within its training: a shell has kept its code.
        elsewhere: the training has ranks that another `vl run` has started, on another node.
        left: output folders in which this attempt or an earlier one of this run has trained; looked up only where an
            error is about one that isn't empty.
    """

    code: int | None = 0
    signal: str | None = None
    errors: Sequence[Error] = ()
    began: bool = False
    began_at: int | None = None
    step: int | None = None
    committed: int | None = None
    committed_here: bool = False
    commits: Sequence[int] = ()
    nonfinite: int | None = None
    silent: float | None = None
    told: str | None = None
    oom_kills: int = 0
    lost: Sequence[int] = ()
    preempted: bool = False
    micro_batch: int = 0
    accumulation: int = 0
    seconds: float = 0.0
    vault: str = ""
    unfinished: bool = False
    over: bool = False
    hidden: bool = False
    elsewhere: bool = False
    left: Sequence[str] = ()

    @property
    def trained(self) -> bool:
        """Whether it trained a step."""
        return self.step is not None and self.step > (self.began_at or 0)

    @property
    def by_another_node(self) -> bool:
        """Whether nothing went wrong here before a rank of another node was gone, whose own `vl run` knows why."""
        return self.began and self.elsewhere and bool(self.errors) and blame(self.errors) is None


_OF_OTHERS = (
    "closed by peer",
    "Connection reset",
    "Broken pipe",
    "NCCL",
    "gloo",
    "TCPStore",
    "DistNetworkError",
)
_GONE_RANK = ("torch.distributed.", "torch.distributed.elastic.", "vaultlayer_hf.errors.RanksError")
LAUNCHERS_ERROR, _BY_A_SIGNAL = "CalledProcessError", "died with <Signals."
"""How `accelerate launch` says that the one process which it has started is gone, and that a signal has ended it."""
_STORE = ("VaultUnreachableError", "StoreUnavailableError", "StoreFullError")
DENIED = ("VaultDeniedError", "StoreDeniedError")
"""What somebody must change something for; where it had been right in an earlier attempt it may pass: a machine that
hands out credentials may be down for a while."""
USAGE = ("SettingsError", "VaultUriError", "MissingExtraError")
_REFUSED = (
    *USAGE, "NoUsableCheckpointError", "NoSuchCheckpointError", "WorldSizeError", "WrongModelError", "OtherRunError",
    "NotLoadedError", "CorruptError", "FormatVersionError", "SignatureError", "ResumeError", "VaultLayerError",
)  # fmt: skip
_FAULTS = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS")


def follows_from_another(error: Error) -> bool:
    """Tell whether an error only says that another process is gone: a rank, or what a launcher has started."""
    if error.type.endswith(LAUNCHERS_ERROR) and _BY_A_SIGNAL in error.message:
        return True
    return error.type.startswith(_GONE_RANK) or any(word in error.message for word in _OF_OTHERS)


def blame(errors: Sequence[Error]) -> Error | None:
    """Return the exception that came first and doesn't merely follow from another rank's; None: there is none."""
    own = sorted((one for one in errors if not follows_from_another(one)), key=lambda one: one.time)
    return own[0] if own else None


def classify(death: Death, trained_before: bool = False) -> Cause:
    """Return what ended an attempt; ``trained_before``: an earlier one has trained a step."""
    # A script that catches the signal by itself may save, and end well, in the middle of its training.
    left_early = death.told is not None and death.began and not death.over
    if death.code == 0 and not left_early and not death.hidden:
        return Cause.UNFINISHED if death.unfinished else Cause.FINISHED
    if death.told is not None:
        return Cause.TOLD
    if death.preempted:
        return Cause.PREEMPTED
    if death.silent is not None:
        return Cause.HANG
    error = blame(death.errors)
    if death.nonfinite is not None and (error is None or error.type.endswith("NonFiniteLossError")):
        return Cause.NONFINITE
    by_error = _by_error(error, trained_before)
    if by_error is Cause.MEMORY and not death.began:
        by_error = None  # loading the model takes more than there is: no micro-batch changes that
    if by_error is not None:
        return by_error
    if error is not None and error.not_empty and not death.began and _of_folder(error, death.left):
        return Cause.NOT_EMPTY
    if death.oom_kills and death.began and error is None:
        return Cause.HOST_MEMORY
    faulted = death.signal in _FAULTS or (error is not None) or (death.code is not None and not death.lost)
    if faulted and not death.trained and not trained_before and not death.by_another_node:
        return Cause.STARTUP
    if error is not None or (faulted and not death.errors):
        return Cause.CRASH
    return Cause.KILLED


def _of_folder(error: Error, left: Sequence[str]) -> bool:
    """Tell whether what is there already may be one of these output folders, or lies in one.

    The system names the path. What a script says by itself needn't: LLaMA-Factory doesn't.
    """
    if error.type != "FileExistsError" or not re.match(r"\[\w+ \d+\] ", error.message):
        return bool(left)
    named = re.split(r"""[\s'"():/\\]+""", error.message)
    return any(re.split(r"[/\\]", folder)[-1] in named for folder in left)


def _by_error(error: Error | None, trained_before: bool) -> Cause | None:
    if error is None:
        return None
    name = error.type.rpartition(".")[2]
    if error.full:
        return Cause.DISK_FULL
    if error.memory:
        return Cause.MEMORY
    if name == "OtherMicroBatchError":
        return Cause.MICRO_BATCH
    if name == "FencedError":
        return Cause.FENCED
    if name in _STORE or (name in DENIED and trained_before):
        return Cause.STORE
    if name in _REFUSED or name in DENIED:
        return Cause.REFUSED
    return None
