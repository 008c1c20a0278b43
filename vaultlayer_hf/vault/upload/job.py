"""What the background uploader is given, and what it has done so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.snapshot import Snapshot


@dataclass(frozen=True)
class Job:
    """A snapshot and what to do with it.

    Attributes:
        snapshot: sealed or not.
        folder: key prefix in the vault, the same on all nodes.
        only: paths that this node sends; None: all.
        others: the other nodes whose parts belong to the checkpoint; for the node that commits.
    """

    snapshot: Snapshot
    folder: str
    only: frozenset[str] | None = None
    others: tuple[int, ...] = ()

    @property
    def seq(self) -> int:
        """Position among the saves of this writer."""
        return self.snapshot.seq

    @property
    def size(self) -> int:
        """Bytes of the snapshot."""
        if self.snapshot.stats:
            return sum(size for size, _ in self.snapshot.stats.values())
        return self.snapshot.manifest.bytes


@dataclass
class Figures:
    """Figures of a run's uploads. Seconds are wall time; bytes count what was sent, not what was copied."""

    commits: int = 0
    uploaded_bytes: int = 0
    upload_seconds: float = 0.0
    last_commit_time: float = field(default_factory=time.monotonic)
    last_commit_step: int = 0

    def exposure(self, step: int) -> tuple[float, int]:
        """Return (seconds, steps) since the last commit, or since the start where there is none."""
        return time.monotonic() - self.last_commit_time, max(0, step - self.last_commit_step)

    def exposure_text(self, step: int) -> str:
        """Return in words what would be lost now."""
        seconds, steps = self.exposure(step)
        since = "the last commit" if self.commits else "the start, with no commit yet"
        return f"exposure: {seconds:.0f} s and {steps} steps since {since}"

    def add(self, done: Commit) -> None:
        """Count a commit."""
        self.commits += 1
        self.last_commit_time, self.last_commit_step = time.monotonic(), done.step

    @property
    def seconds_each(self) -> float:
        """What the upload of a commit has taken so far, on average; 0 before the first."""
        return self.upload_seconds / self.commits if self.commits else 0.0
