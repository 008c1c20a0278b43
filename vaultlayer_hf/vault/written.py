"""The note ``written.json`` of a snapshot: all ranks had written it, and this is how its files looked then.

A seal takes as long as reading every file, and a process may be killed before that. What a process has written and
closed is the kernel's, and outlives the process, but not the machine: a snapshot with this note counts as long as the
kernel that holds its files runs, told by its boot id, and nobody has touched them, told by size, mtime and inode. It
isn't flushed to the disk, because it counts for nothing behind a power cut. Where the system has no boot id (only Linux
has), no note ever counts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import CorruptError
from vaultlayer_hf.vault.manifest import MANIFEST_LIMIT, Manifest, manifest_from
from vaultlayer_hf.vault.parse import FORMAT_VERSION, dump, load

NOTE = "written.json"
"""The note's name in a snapshot's folder."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Look:
    """How a file looks from outside; its content can't have changed while this hasn't."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True)
class Written:
    """What a note says.

    Attributes:
        manifest: of the snapshot, without files.
        boot: id of the boot in which it was written; empty: unknown.
        files: how each file looked, by its path.
    """

    manifest: Manifest
    boot: str
    files: dict[str, Look]


def boot_id() -> str:
    """Return the id of this boot of the machine; empty where the system has none."""
    try:
        return BOOT_ID.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def look_at(path: Path) -> Look:
    """Return how a file looks now. Raises OSError."""
    stat = os.lstat(path)
    return Look(stat.st_size, stat.st_mtime_ns, stat.st_ino)


def write_note(folder: Path, written: Written, name: str = NOTE) -> None:
    """Write the note into a snapshot's folder: all of it or nothing. Raises OSError."""
    data = dump(
        {
            "format_version": FORMAT_VERSION,
            "manifest": written.manifest.content,
            "boot": written.boot,
            "files": {path: [look.size, look.mtime_ns, look.inode] for path, look in written.files.items()},
        }
    )
    files.write_unflushed(folder / name, data)


def read_note(folder: Path, name: str = NOTE) -> Written:
    """Read and check the note of a snapshot's folder. Raises CorruptError, FormatVersionError, OSError."""
    path = folder / name
    fields = load(files.read_small(path, MANIFEST_LIMIT), str(path))
    looks = {}
    for name, value in fields.mapping("files").items():
        match value:
            case [int(size), int(mtime), int(inode)]:
                looks[name] = Look(size, mtime, inode)
            case _:
                raise CorruptError(f"{path}: how {name!r} looked is not [size, mtime, inode]")
    return Written(manifest_from(fields.part("manifest"), str(path)), fields.text("boot", limit=100), looks)


def why_not(written: Written, found: dict[str, Look]) -> str:
    """Return why a snapshot with these files doesn't count, in words; empty where it does."""
    if not written.boot:
        return "this system doesn't tell whether the machine has been restarted since"
    if written.boot != boot_id():
        return "the machine has been restarted since, or it is another one"
    if written.files.keys() != found.keys():
        names = sorted(written.files.keys() ^ found.keys())
        return f"files were added or removed since: {', '.join(names[:3])}"
    changed = sorted(name for name, look in found.items() if look != written.files[name])
    return f"it was changed since: {', '.join(changed[:3])}" if changed else ""
