"""What `auto` learns from a vault's own log: how often the run has died, and what its saves cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.vault.tools import memory_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import entry_key
from vaultlayer_hf.vault.log.entry import Entry, VaultState, encode_entry
from vaultlayer_hf.vault.log.history import VaultHistory, read_history
from vaultlayer_hf.vault.log.log import Log

START = datetime(2026, 1, 1, tzinfo=UTC)


class Past:
    """Writes a log entry by entry, with the times that a test says."""

    def __init__(self) -> None:
        self.store: Store = memory_store()
        self.number = 0
        self.state = VaultState("vault", 0)

    def add(self, kind: str, hours: float, **detail: float) -> Past:
        """Append an entry ``hours`` after the start."""
        self.number += 1
        if kind == "claim":
            self.state = self.state.claimed(self.number)
        if kind == "commit":
            commit = _commit(self.number, self.state.token)
            self.state = self.state.committed(commit, resumed_from=None, best_step=None)
        if kind == "finish":
            self.state = self.state.done(self.number, {})
        time = (START + timedelta(hours=hours)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = Entry(self.number, kind, f"w{self.number}", self.state.token, time, detail, self.state)  # type: ignore[arg-type]
        self.store.create(entry_key(self.number), encode_entry(entry))
        return self

    def read(self) -> VaultHistory:
        """The history as the claim that is the last entry finds it."""
        return read_history(Log(self.store), self.number)


def _commit(number: int, token: int):  # type: ignore[no-untyped-def]
    from vaultlayer_hf.base.digest import digest_bytes
    from vaultlayer_hf.vault.log.entry import Commit

    return Commit(
        number, token, 1, number, f"data/{token}/checkpoint-{number}", "t", 1, 1, digest_bytes(b"x"), 1
    )


def test_a_fresh_vault_tells_nothing() -> None:
    """The first claim has no past."""
    assert Past().add("claim", 0).read() == VaultHistory()


def test_deaths_are_counted() -> None:
    """Claims behind commits without a finish are deaths; the time alive is that up to the last entries."""
    past = Past()
    past.add("claim", 0).add("commit", 1).add("commit", 2, stall=0.5, upload=7.0)
    past.add("claim", 10).add("commit", 13, stall=0.25, upload=8.0).add("retire", 13)
    past.add("claim", 20)
    assert past.read() == VaultHistory(failures=2, alive=5 * 3600.0, stall=0.25, upload=8.0)


def test_what_ended_well_or_never_began_is_no_death() -> None:
    """A finished attempt, and one that never committed, say nothing of how often this run dies."""
    past = Past().add("claim", 0).add("commit", 4, stall=1.0).add("finish", 5).add("claim", 6).add("claim", 7)
    assert past.read() == VaultHistory(failures=0, alive=5 * 3600.0, stall=1.0)


@pytest.mark.parametrize("stall", [-1.0, True, "x", None])
def test_nonsense_in_the_log_is_no_measurement(stall: float) -> None:
    """What can't be seconds isn't believed."""
    assert Past().add("claim", 0).add("commit", 1, stall=stall).add("claim", 2).read().stall is None


def test_only_the_newest_attempts_are_read() -> None:
    """A vault of a thousand attempts costs no more requests than one of twenty."""
    past = Past()
    for hour in range(100):
        past.add("claim", hour).add("commit", hour + 0.5)
    assert past.add("claim", 100).read().failures == 20


def test_damage_ends_the_history() -> None:
    """An entry that can't be read ends the history there, and nothing else."""
    past = Past().add("claim", 0).add("commit", 1)
    past.add("claim", 2)
    past.store.delete([entry_key(2)])
    assert past.read() == VaultHistory()
