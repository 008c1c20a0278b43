"""What is said of cold starts."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from vaultlayer_hf.run.engines import spare
from vaultlayer_hf.run.engines.spare import Spares


@pytest.mark.skipif(sys.platform != "linux", reason="spares are kept on Linux only")
def test_why_starts_are_cold_is_said_once_for_each_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is started again and again says it once, and then what has changed about it."""

    class Waiting:
        """Stands for a spare that waits, and can't become the next attempt."""

        def __init__(self, command: Any, environment: dict[str, str], record: Any) -> None:
            self.environment = environment

        def has_come_far(self, needed: float) -> bool:
            return True

        def become_attempt(self, environment: dict[str, str], needed: float) -> str:
            return "it had ended"

        def end(self) -> None:
            pass

    monkeypatch.setattr(spare, "SpareProcess", Waiting)
    monkeypatch.setattr(spare, "RankSpares", lambda notice: None)
    monkeypatch.setattr(spare, "read_record", lambda data, pid: [("i", "os")])
    monkeypatch.setattr(spare, "memory_left", lambda: 2**40)
    said: list[str] = []
    environment = dict(os.environ)
    spares = Spares((sys.executable, "-c", ""), lambda topic, message: said.append(message))
    attempt = None
    try:
        for waits in (False, False, False, True, True, False):
            if waits and attempt is not None:
                spares.watch(attempt.pid, environment, trains=True)
            attempt = spares.start(environment)
            attempt.communicate()
    finally:
        spares.close()
    not_ready, ended = "this start is cold: no interpreter was ready yet", "this start is cold: it had ended"
    assert said == [not_ready, ended, not_ready]
