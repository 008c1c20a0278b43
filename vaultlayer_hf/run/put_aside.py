"""Moves what earlier attempts left in an output folder out of a script's way, and back once it trains.

Many scripts end with "Output directory already exists and is not empty" where they find files and no checkpoint in
their output folder. The first attempt has put TensorBoard's logs or snapshots there, so without this every later one
would end there. Nothing is deleted: the folder gets another name beside itself while the script looks, and its content
comes back as the Trainer begins to train, ahead of the look for a snapshot to go on from; at the
latest as `vl run` ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.run.journal import attempt_folder, attempts, notes_of, read_notes

_SUFFIX = ".put-aside"


def output_dirs(folder: Path) -> list[Path]:
    """Return the output folders in which the attempts of a run folder have trained, each once."""
    found = {
        str(line["output_dir"])
        for number in attempts(folder)
        for line in notes_of(read_notes(attempt_folder(folder, number)), "train")
        if line.get("output_dir")
    }
    return [Path(path) for path in sorted(found)]


def put_aside(
    folders: Sequence[Path], notice: Callable[[str, str], None], *, keep: Sequence[Path] = ()
) -> bool:
    """Rename each of these folders that holds something; tell whether there was one. Never raises.

    A folder in which one of ``keep`` lies stays: the working directory, say. Only while no process trains there.
    """
    moved = False
    for output_dir in folders:
        aside = _aside(output_dir)
        inside = any(path.resolve().is_relative_to(output_dir.resolve()) for path in keep)
        try:
            if inside or not output_dir.is_dir() or not any(output_dir.iterdir()):
                continue
            if aside.is_dir():  # an attempt that ended before it trained has made a few files of its own
                _merge(output_dir, aside)
            else:
                files.rename(output_dir, aside)
        except OSError as error:
            notice("aside", f"{output_dir} can't be put aside: {error.strerror or error}")
            continue
        notice(
            "aside", f"{output_dir} is put aside as {aside.name} until training begins, and then comes back"
        )
        moved = True
    return moved


def bring_back(output_dir: Path) -> None:
    """Move what was put aside back into an output folder; what the script has made there meanwhile stays.

    Never raises: what can't be moved stays where it is.
    """
    aside = _aside(output_dir)
    try:
        if aside.is_dir():
            files.make_folder(output_dir)
            _merge(aside, output_dir)
    except OSError:
        pass


def bring_all_back(folder: Path) -> None:
    """Do so for all output folders of a run folder. Only while no process trains there."""
    for output_dir in output_dirs(folder):
        bring_back(output_dir)


def _aside(output_dir: Path) -> Path:
    return output_dir.with_name(output_dir.name + _SUFFIX)


def _merge(source: Path, target: Path) -> None:
    """Move everything from one folder into another that doesn't hold it yet; folders that both have are merged."""
    for path in sorted(source.iterdir()):
        there = target / path.name
        if not there.exists():
            files.rename(path, there)
        elif path.is_dir() and there.is_dir():
            _merge(path, there)
    if not any(source.iterdir()):
        source.rmdir()
