"""Two real processes on one vault: one trains and retires, the other pins and lets go as fast as it can."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.kit.any_files import AnyFiles
from tests.vault.vaults import PARAMETERS, TrainersFiles, a_session, write_checkpoint
from vaultlayer_hf import NoSuchCheckpointError, ObjectNotFoundError, open_vault
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.training import Training


def write(vault: str, output: str, saves: int) -> None:
    """Save and commit, keeping only the newest, and end as a run does."""
    session, heard = a_session(vault, Path(output), keep_last=1)
    training = Training(session)
    resume(session, TrainersFiles())
    for step in range(1, saves + 1):
        folder = write_checkpoint(Path(output), step)
        training.save(Save(folder, step, AnyFiles(), parameters=PARAMETERS))
        assert training.flush(), heard.events
    training.finish(saves, {})
    training.close()


def pin(vault: str, until: str, result: str) -> None:
    """Pin whatever is the newest until a file appears; let go of every third. Note what was acknowledged."""
    pinned: dict[int, int] = {}
    attempts = lost = 0
    while not Path(until).exists():
        try:
            found = open_vault(vault)
        except ObjectNotFoundError:  # the run hasn't claimed it yet
            continue
        with found as opened:
            newest = opened.state.newest if opened.state else None
            if newest is None or newest.number in pinned:
                time.sleep(0.001)
                continue
            attempts += 1
            try:
                opened.pin(newest)
                pinned[newest.number] = newest.step
                if attempts % 3 == 0:
                    opened.pin(newest, False)
                    del pinned[newest.number]
            except NoSuchCheckpointError:
                lost += 1
    Path(result).write_text(json.dumps({"pinned": list(pinned.values()), "lost": lost}))
