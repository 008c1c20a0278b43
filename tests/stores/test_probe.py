"""Probes of processes that were killed meanwhile don't stay in the vault for good."""

from __future__ import annotations

import uuid
from pathlib import Path

from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.stores.probe import PROBE_GRACE, PROBES, clear_probes


def test_stale_probes_are_deleted(tmp_path: Path) -> None:
    """What a killed start left behind goes a day later; fresh probes and what isn't ours stay."""
    store = FolderStore(tmp_path)
    ours = [
        f"{PROBES}{uuid.uuid4().hex}.json",
        f"{PROBES}{uuid.uuid4().hex}",
        f"{PROBES}clock-0123456789abcdef",
    ]
    others = [f"{PROBES}notes.txt", f"{PROBES}mine/{uuid.uuid4().hex}.json"]
    for key in ours + others:
        store.write(key, b"")
    now = store.head(ours[0]).modified
    assert clear_probes(store, now + PROBE_GRACE - 60) == []
    assert sorted(clear_probes(store, now + PROBE_GRACE + 60)) == sorted(ours)
    assert sorted(info.key for info in store.list(PROBES)) == sorted(others)
