"""A process that claims a vault at the same moment as others, and then appends as long as it may."""

from __future__ import annotations

import json
import time
from pathlib import Path

from vaultlayer_hf import FencedError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.log.log import Log, Writer


def race(vault: str, gate: str, result: str, appends: int = 5) -> None:
    """Claim once the gate is open, append, and once all have claimed append again; note what happened."""
    store = open_store(vault)
    log = Log(store)
    while not Path(gate).exists():
        time.sleep(0.001)
    writer, _ = Writer.claim(store, log)
    done, fenced = 0, False
    try:
        for _ in range(appends):
            writer.append("retire", lambda state, number: state)
            done += 1
        Path(f"{result}.ready").touch()
        while len(list(Path(result).parent.glob("*.ready"))) < 8:
            time.sleep(0.01)
        writer.append("retire", lambda state, number: state)
    except FencedError:
        fenced = True
        Path(f"{result}.ready").touch()
    Path(result).write_text(json.dumps({"token": writer.token, "done": done, "fenced": fenced}))
