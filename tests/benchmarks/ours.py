"""The package as a client of the benchmark: what a save and a resume do with a folder, without a Trainer.

Through the session that the Trainer drives: claim, snapshot, seal (digests), upload, manifest, commit; and on the
way back discovery, manifest, ranged reads, digests, flush, rename.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.servers import BUCKET

WAY = "process + nice"
"""How the package uploads, as part c calls it."""


class Carrier:
    """A claimed vault that takes one checkpoint folder again and again."""

    def __init__(self, vault: str, folder: Path) -> None:
        from vaultlayer_hf.session.session import Session
        from vaultlayer_hf.session.settings import Settings
        from vaultlayer_hf.session.training import Training

        self.folder = folder
        # one writer after the other in the same output_dir would adopt: each gets its own, on the same disk
        self.output = Path(tempfile.mkdtemp(prefix="output-", dir=folder.parent))
        session = Session(Settings(vault=vault, keep_last=1, flush_timeout=600), self.output, progress=False)
        self.training: Any = Training(session)
        session.enter()
        session.start_uploads(None)

    def carry(self) -> None:
        """Save the folder and wait until it is committed. Raises RuntimeError where it isn't."""
        from tests.kit.any_files import AnyFiles
        from vaultlayer_hf.session.save.plan import Save

        if self.training.metrics()["vault/commits"]:
            self._change()
        before = self.training.metrics()["vault/commits"]
        self.training.save(Save(self.folder, 500, AnyFiles()))
        if not self.training.flush() or self.training.metrics()["vault/commits"] != before + 1:
            raise RuntimeError("the checkpoint wasn't committed")

    def _change(self) -> None:
        """Make every large file another one: an unchanged file would be copied inside the store, not sent."""
        for path in self.folder.iterdir():
            if path.stat().st_size > 2**20:
                with open(path, "r+b") as file:
                    file.seek(2**16)
                    file.write(os.urandom(8))

    def close(self) -> None:
        """End the uploader and remove its folder."""
        self.training.close()
        shutil.rmtree(self.output, ignore_errors=True)


def go_another_way(way: str) -> None:
    """Have the uploads of this process done in one of the other ways that part c compares."""
    from vaultlayer_hf.vault.upload import uploader
    from vaultlayer_hf.vault.upload.mover import mover
    from vaultlayer_hf.vault.upload.mover import store as moving

    if way.startswith("thread"):
        moving.LARGE = sys.maxsize
    if not way.endswith("nice"):
        uploader.give_way = lambda: None
        mover.PRIORITY = 0


def vaults() -> str:
    """Return what the address of a vault begins with: below the bucket of part a, or where a variable says."""
    return os.environ.get("BENCH_VAULTS", f"s3://{BUCKET}")


def sealed(move: Callable[[str, Path], None], variable: str, value: str) -> Callable[[str, Path], None]:
    """Return how a folder is moved with a key in a variable of this process."""

    def moves(prefix: str, folder: Path) -> None:
        os.environ[variable] = value
        move(prefix, folder)

    return moves


def upload(prefix: str, folder: Path) -> None:
    carrier = Carrier(f"{vaults()}/{prefix}", folder)
    try:
        carrier.carry()
    finally:
        carrier.close()


def download(prefix: str, folder: Path) -> None:
    """Restore the newest checkpoint; its files end up in ``folder`` itself."""
    from tests.kit.any_files import AnyFiles
    from vaultlayer_hf.session.session import Session
    from vaultlayer_hf.session.settings import Settings
    from vaultlayer_hf.session.start.resume import resume

    session = Session(Settings(vault=f"{vaults()}/{prefix}"), folder, progress=False)
    try:
        path = resume(session, AnyFiles())
    finally:
        session.close()
    if path is None:
        raise RuntimeError("the vault was empty")
    for name in os.listdir(path):  # the benchmark compares files; renames cost microseconds
        os.rename(path / name, folder / name)


def forget(vault: str) -> None:
    """Remove a folder vault; what lies in a server goes with the server."""
    if not vault.startswith("s3://"):
        shutil.rmtree(vault, ignore_errors=True)
