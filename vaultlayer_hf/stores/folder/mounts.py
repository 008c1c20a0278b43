"""Mounts that only look safe for two writers: their names are known, because trying tells nothing.

A bucket that is mounted as a folder answers link(2) with a copy on the server, or from a cache of this machine: one
process that tries it sees create-if-absent, and two machines can both win. hf-mount says so itself.
"""

from __future__ import annotations

import re
from pathlib import Path

_BUCKETS = ("hf-mount", "rclone", "s3fs", "gcsfuse", "mountpoint-s3", "goofys", "blobfuse", "geesefs")
"""Programs that mount a bucket, as they name themselves in the type or the source of a mount."""
_OF_THIS_MACHINE = re.compile(r"(127\.0\.0\.1|localhost|\[?::1\]?):")
"""Sources of NFS mounts whose server is a program of this machine: so hf-mount and rclone serve a bucket, too."""
_ESCAPE = re.compile(r"\\([0-7]{3})")
_MOUNTS = Path("/proc/self/mountinfo")


def last_writer_wins(path: str, mounts: str | None = None) -> bool:
    """Tell whether a real path lies on a mount of which it is known that two writers can both create one file.

    ``mounts``: as in ``/proc/self/mountinfo``, which is read by default; where there is none (not Linux): False.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return False
    found, kind, source = "", "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, behind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(behind) < 2:
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found):  # of two at one place the later one is seen
            found, kind, source = point, behind[0], behind[1]
    if kind.startswith("nfs") and _OF_THIS_MACHINE.match(source):
        return True
    return any(name in part.lower() for name in _BUCKETS for part in (kind, source))
