"""What the attempts at a run before this one have come to, as its log shows: how many died, and what saves cost.

An attempt that committed, didn't finish, and was followed by a claim has died (or was told to stop: that can't be
told apart). Only for choosing a cadence, so clocks may be trusted here: a wrong one costs some I/O or some steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from vaultlayer_hf.errors import CorruptError, StoreError
from vaultlayer_hf.vault.log.entry import Entry
from vaultlayer_hf.vault.log.log import Log

_ATTEMPTS = 20
"""How many of the last attempts are looked at: two or three requests each."""


@dataclass(frozen=True)
class VaultHistory:
    """What the attempts before this one have come to.

    Attributes:
        failures: how many died.
        alive: seconds from their claims to their last entries.
        stall: seconds that a save kept training waiting, at the last commit that says so; None: none does.
        upload: seconds that an upload took then.
    """

    failures: int = 0
    alive: float = 0.0
    stall: float | None = None
    upload: float = 0.0


def read_history(log: Log, token: int) -> VaultHistory:
    """Return the history of the attempts before the claim ``token``; what can't be read ends it."""
    failures, alive = 0, 0.0
    stall: float | None = None
    upload = 0.0
    for _ in range(_ATTEMPTS):
        if token <= 1:
            break
        try:
            last = log.read(token - 1)
            claim = last if last.kind == "claim" else log.read(last.state.token)
            if stall is None:
                stall, upload = _cost(log, last)
            alive += max(0.0, _seconds(last) - _seconds(claim))
        except (StoreError, CorruptError, ValueError):
            break
        ended = last.kind == "finish" or (last.kind == "pin" and last.state.finished is not None)
        failures += last.number > claim.number and not ended
        token = claim.number
    return VaultHistory(failures, alive, stall, upload)


def _cost(log: Log, last: Entry) -> tuple[float | None, float]:
    """Return what the newest commit says that a save costs; None where it says nothing."""
    if not last.state.commits:
        return None, 0.0
    number = last.state.commits[-1].number
    detail = (last if number == last.number else log.read(number)).detail
    return _as_seconds(detail.get("stall")), _as_seconds(detail.get("upload")) or 0.0


def _as_seconds(value: object) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) and value >= 0 else None  # type: ignore[operator,arg-type]


def _seconds(entry: Entry) -> float:
    return datetime.fromisoformat(entry.time.replace("Z", "+00:00")).timestamp()
