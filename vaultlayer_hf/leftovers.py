"""What a dead process left in ``output_dir``, made harmless; on each node by its leader."""

from __future__ import annotations

from pathlib import Path

from vaultlayer_hf import files
from vaultlayer_hf.events import Events
from vaultlayer_hf.vault.restore import set_age
from vaultlayer_hf.vault.snapshot import LOCAL

_OLDER = 60.0
"""Seconds by which folders that are already there are made older than what this run will write."""


def clear_half_done(output_dir: Path) -> None:
    """Remove half-restored folders."""
    folder = output_dir / LOCAL
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(("restore-", "old-")):
            files.remove_tree(path)


def settle(output_dir: Path, step: int) -> None:
    """Make the checkpoint folders in ``output_dir`` harmless for the Trainer's rotation.

    Folders of later steps are what a dead process left, torn perhaps, and never committed, or stand
    after the step that was asked for: they would be counted as the newest, and the new ones deleted in
    their place. They are moved aside, not deleted. All others are made to look older than any new one.
    """
    for path in output_dir.glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if not path.is_dir() or not number.isdigit():
            continue
        if int(number) > step:
            aside = output_dir / LOCAL / "aside"
            files.make_folder(aside)
            files.remove_tree(aside / path.name)
            files.rename(path, aside / path.name)
        else:
            set_age(path, _OLDER)


def warn_of_unknown(output_dir: Path, events: Events) -> None:
    """Say that checkpoints from before the vault aren't looked at."""
    names = sorted(path.name for path in output_dir.glob("checkpoint-*") if path.is_dir())
    if names:
        events.warn(
            "notice",
            f"{output_dir} holds checkpoints that this vault doesn't know ({', '.join(names[:3])}…): to go on from "
            "one, call train(resume_from_checkpoint=…) with it once; what it saves from then on is in the vault",
        )
