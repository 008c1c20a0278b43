"""Bringing a commit to every node: what ends it on one is known on all, and leaves nothing open."""

from __future__ import annotations

import platform
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.session.start.test_relay import PIECE, WORLD, vault
from tests.session.test_ranks import on_all, ranks_of
from tests.vault.vaults import TrainersFiles
from vaultlayer_hf import Settings
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start import bring, relay
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.vault.restore import download


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_whatever_ends_a_restore_is_known_on_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """Ctrl-C, or a mistake, on node 1 amid a restore: the others learn it and no relay goes on listening."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr("vaultlayer_hf.session.ranks._LOOK_SECONDS", 0.1)
    for module in (relay, download):
        monkeypatch.setattr(module, "STRETCH", PIECE)
    monkeypatch.setattr(relay, "SMALLEST", PIECE)
    store, _ = vault(tmp_path)
    plain = bring.restore

    def restore(*args: Any, **kwargs: Any) -> Any:
        if "node-1" in str(args[3]):
            raise kind
        return plain(*args, **kwargs)

    monkeypatch.setattr(bring, "restore", restore)

    def start(one: Ranks) -> Any:
        settings = Settings(vault="file:///unused", resume_timeout=5.0, part_timeout=5.0, flush_timeout=5.0)
        output = tmp_path / f"node-{one.rank}"
        session = Session(settings, output, ranks=one, store=store, progress=False)
        try:
            return resume(session, TrainersFiles())
        except KeyboardInterrupt:
            return "interrupted"
        finally:
            session.close()

    with ranks_of(WORLD, timeout=20.0) as ranks:
        found = on_all(ranks, start)
    said = {
        KeyboardInterrupt: f"rank 1 on {platform.node()} has ended its training",
        ZeroDivisionError: f"rank 1 on {platform.node()}: ZeroDivisionError: ZeroDivisionError",
    }[kind]
    for rank in (0, 2):
        assert isinstance(found[rank], RanksError)
        assert str(found[rank]) == said
    assert found[1] == "interrupted" or isinstance(found[1], RanksError)
    for thread in [thread for thread in threading.enumerate() if thread.name == "vaultlayer-relay"]:
        thread.join(5)
        assert not thread.is_alive()
