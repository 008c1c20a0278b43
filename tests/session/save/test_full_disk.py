"""A disk that is full when a checkpoint is copied for the upload."""

from __future__ import annotations

from pathlib import Path

from tests.kit.any_files import AnyFiles
from tests.kit.disks import small_disk_at
from tests.vault.tools import Run, memory_store, write_checkpoint
from vaultlayer_hf.session.save.plan import Save


def test_what_the_vault_holds_makes_room(tmp_path: Path) -> None:
    """Where the copy for the upload finds no space, the folder of a committed checkpoint goes, and it is committed."""
    with small_disk_at(tmp_path / "disk", "4m") as disk:
        run = Run(memory_store(), disk / "out")
        run.resume()
        run.save(100, size=1_500_000)
        run.wait()
        folder = disk / "out" / "checkpoint-200"
        run.training.before_save(folder)
        write_checkpoint(disk / "out", 200, 1_500_000)
        with open(disk / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass
        run.training.save(Save(folder, 200, AnyFiles()))
        run.wait()
        assert [event.fields["step"] for event in run.events("commit")] == [100, 200]
        assert any("copied for upload again" in event.message for event in run.events("trouble"))
        assert not (disk / "out" / "checkpoint-100").exists()
        run.close()
