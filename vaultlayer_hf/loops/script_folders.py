"""Folders that an attached script's own save_state writes: their step, their name, and links to their files."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from vaultlayer_hf.base import files

OURS = ".vaultlayer"
"""The folder below the script's own that holds links and restores."""

_OWN_NAME = re.compile(r"checkpoint_(\d+)")
"""How accelerate names folders by itself."""


def own_number(name: str) -> int | None:
    """Return the number of a folder that accelerate has named by itself; None for any other name."""
    match = _OWN_NAME.fullmatch(name)
    return int(match[1]) if match else None


def target_of(accelerator: Any, output_dir: Any, root: Path) -> Path:
    """Return the folder that an Accelerator is about to write to; ``root``: of the script that names none."""
    options = accelerator.project_configuration
    if options.automatic_checkpoint_naming:
        return Path(accelerator.project_dir) / "checkpoints" / f"checkpoint_{options.iteration}"
    return Path(output_dir).expanduser() if output_dir is not None else root


def step_of(name: str, last: int) -> int:
    """Return the step of a folder from the number in its name, or the next one where that isn't higher. Pure."""
    numbers = re.findall(r"\d+", name)
    return max(int(numbers[-1]) if numbers else 0, last + 1)


def named_from(root: Path, location: Path) -> PurePosixPath:
    """Return a folder's path from ``root``, or its bare name where it lies elsewhere."""
    try:
        return PurePosixPath(location.resolve().relative_to(root.resolve()).as_posix())
    except ValueError:
        return PurePosixPath(location.name)


def safe(folder: str) -> PurePosixPath:
    """Return a path that can't lead out of the folder that it is named from."""
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts:
        return PurePosixPath(path.name)
    return path


def link_tree(source: Path, target: Path) -> None:
    """Give the files of a folder a second name each. Raises OSError."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_dir() or OURS in relative.parts or path.name.startswith(files.TEMPORARY):
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        if not files.link(path, target / relative):
            shutil.copyfile(path, target / relative)


def unshare(folder: Path) -> None:
    """Make files that a snapshot shares with a folder the folder's own, before they are written again in place.

    Raises OSError, where the disk is full for instance: a file that stays shared shows through the snapshot when it is
    written, and the upload finds it changed and gives that checkpoint up.
    """
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1 and OURS not in path.parts:
            files.write_atomically(path, partial(shutil.copy2, path))


def stamps(folder: Path) -> dict[Path, tuple[int, int]] | None:
    """Return (size, mtime in ns) of each file of a folder but ours; None where there is no folder."""
    if not folder.is_dir():
        return None
    found = {}
    for path in folder.rglob("*"):
        if OURS not in path.parts and path.is_file():
            stat = path.stat()
            found[path] = (stat.st_size, stat.st_mtime_ns)
    return found


def remove_written(folder: Path, before: dict[Path, tuple[int, int]] | None) -> None:
    """Remove what was written in vain: all files that aren't as they were ``before``, and a folder that is new.

    A script may save into a folder that holds other things of its own: they stay.
    """
    if before is None:
        files.remove_tree(folder)
        return
    for path, stamp in (stamps(folder) or {}).items():
        if before.get(path) != stamp:
            files.remove_file(path)


def move_restored(restored: Path, target: Path, number: int | None, aside: Path) -> None:
    """Move the files of a restored folder into place, and what a dead process left behind it out of the way.

    ``number``: the folder's, where accelerate names the next ones; ``aside``: where those go that have higher ones.
    """
    for path in sorted(restored.rglob("*")):
        if not path.is_dir():
            files.make_folder((target / path.relative_to(restored)).parent)
            files.move(path, target / path.relative_to(restored))
    files.remove_tree(restored)
    for path in list(target.parent.iterdir()) if number is not None else ():
        other = own_number(path.name)
        if other is not None and number is not None and other > number:
            files.make_folder(aside)
            files.remove_tree(aside / f"checkpoint-{other}")
            files.move(path, aside / f"checkpoint-{other}")
