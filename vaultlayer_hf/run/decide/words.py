"""Puts the death of an attempt into words. Pure."""

from __future__ import annotations

import re

from vaultlayer_hf.run.decide.cause import Cause, Death, Error

_HIDDEN = "its exit code was lost in a shell: `set -eo pipefail` there passes it on"


class Words:
    """A death in words."""

    def __init__(self, death: Death, cause: Cause, error: Error | None) -> None:
        self.death, self.cause, self.error = death, cause, error

    def checkpoint(self, at: int | None = None) -> str:
        """The checkpoint that the next attempt goes on from."""
        if at is not None:
            return f"the checkpoint of step {at}"
        step = self.death.committed
        if step is None and self.cause is Cause.STORE:
            return "the newest checkpoint, once the vault can be read"
        return (
            f"the newest checkpoint (step {step}, or a newer one on this disk)"
            if step is not None
            else "a whole checkpoint on this disk, or else from the start, as nothing is committed yet"
        )

    def where(self) -> str:
        """After which step it was."""
        death = self.death
        if death.trained:
            return f"after step {death.step}"
        return (
            "before its first step" if not death.began_at else f"before it got beyond step {death.began_at}"
        )

    def detail(self) -> str:
        """What happened, in one sentence without its full stop."""
        death, error = self.death, self.error
        who = f"rank {error.rank} raised {error.type.rpartition('.')[2]}" if error is not None else ""
        ended = f"{death.signal} ended it" if death.signal else f"it ended with exit code {death.code}"
        if death.lost and error is None and not death.signal:
            ranks = "ranks" if len(death.lost) > 1 else "rank"
            ended = f"{ranks} {', '.join(map(str, death.lost))} died without a word"
            if (
                self.cause is Cause.TOLD
            ):  # all were told, and torchrun's own code is a failure's whatever theirs are
                ended = "it ended"
        said = f"{who} {self.where()}" if error is not None else ""
        if error is not None and error.message.strip():
            said += f": {_first_sentence(error.message)}"
        words = {
            Cause.FINISHED: "it ended with exit code 0",
            Cause.UNFINISHED: "the training is over, and its last checkpoint isn't in the vault",
            Cause.TOLD: f"{ended} {self.where()}",
            Cause.PREEMPTED: f"it was told that its machine ends, saved, and stopped {self.where()}",
            Cause.HANG: f"no rank showed a sign of life for {death.silent or 0:.0f} s {self.where()}",
            Cause.NONFINITE: f"the loss is nan or inf since step {death.nonfinite}",
            Cause.HOST_MEMORY: f"the kernel killed it for memory {self.where()}",
        }
        text = words.get(self.cause) or said or f"{ended} {self.where()}"
        return f"{text} ({_HIDDEN})" if death.hidden and self.cause is not Cause.TOLD else text


def told_by(name: str | None) -> str:
    """Return the name of a signal that `vl run` was sent, with what people do to send it.

    >>> told_by("SIGTERM"), told_by("SIGUSR1")
    ('SIGTERM (`vl stop` sends it)', 'SIGUSR1')
    """
    by = {"SIGTERM": " (`vl stop` sends it)", "SIGINT": " (by Ctrl-C)"}
    return f"{name}{by.get(name, '') if name else ''}"


def _first_sentence(text: str) -> str:
    """Return what an error says happened; what that means and what to do stands above it, in the program's output."""
    line = re.split(r"(?<=\w\w)\. (?=[A-Z])", text.strip().partition("\n")[0], maxsplit=1)[0]
    return line if len(line) <= 300 else line[:300] + "…"
