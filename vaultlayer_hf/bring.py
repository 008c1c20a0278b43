"""Bring a commit to the disks: on each node once what its ranks load, whichever node wrote it. All or none.

Each node fetches from the store. Passing files on between nodes was measured and isn't built: see
tests/benchmarks/README.md.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from vaultlayer_hf import files
from vaultlayer_hf.errors import CorruptError, ResumeError, StoreError, VaultLayerError
from vaultlayer_hf.events import size_text
from vaultlayer_hf.progress import bytes_bar
from vaultlayer_hf.session import Session
from vaultlayer_hf.vault.entry import Commit
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.restore import restore
from vaultlayer_hf.wish import Conversion, Wish

_NOTED_EVERY = 5.0
"""Seconds between two notes of how far a node's restore is."""
_CONVERSION = 1200.0
"""Seconds that a conversion may take on top of a restore."""
_SLOWEST = 2e6
"""Bytes per second: a node that restores more slowly than this counts as gone."""


def bring_everywhere(
    session: Session, wish: Wish, commit: Commit, manifest: Manifest, purpose: str
) -> str | None:
    """Restore a commit on every node; return why the commit itself is bad, raise any other error on all ranks."""
    failure: VaultLayerError | None = None
    if session.leads:
        try:
            _bring(session, wish, commit, manifest, purpose)
        except StoreError as error:
            failure = session.ranks.named(session.access.unreachable(error))
        except VaultLayerError as error:
            failure = session.ranks.named(error)
        except OSError as error:
            what = f"{commit.name} can't be restored to {session.output_dir}: {error}"
            failure = session.ranks.named(ResumeError(what))
    else:
        session.events.info("waiting", f"waiting for {commit.name} to be restored on this node")
    slow = _CONVERSION if conversion_for(session, wish, manifest) is not None else 0.0
    bound = slow + session.settings.resume_timeout + session.settings.part_timeout + manifest.bytes / _SLOWEST
    answers = session.ranks.gather(failure, timeout=bound, on_wait=lambda: _say_waiting(session, commit))
    failures = [found for found in answers if found is not None]
    for found in failures:
        if not isinstance(found, CorruptError):
            raise found
    return str(failures[0]) if failures else None


def _bring(session: Session, wish: Wish, commit: Commit, manifest: Manifest, purpose: str) -> None:
    """Restore what this node's ranks load of a commit."""
    whole, manifest = manifest, _share_of_node(session, wish, manifest)
    conversion = conversion_for(session, wish, whole)

    def finish(staging: Path) -> None:
        if conversion is not None:
            conversion.of_folder(staging)
        for name, data in wish.localise(staging, session.output_dir).items():
            files.write_file(staging / name, data)

    moved, noted = 0, time.monotonic()

    def count(size: int) -> None:
        nonlocal moved, noted
        moved += size
        bar.update(size)
        if time.monotonic() - noted > _NOTED_EVERY:
            noted = time.monotonic()
            session.ranks.note(_topic(session), f"{size_text(moved)} of {size_text(manifest.bytes)}")

    with bytes_bar(manifest.bytes, f"Restoring {commit.name}", shown=session.progress) as bar:
        fetched = restore(
            session.access.store,
            commit.folder,
            manifest,
            session.output_dir / f"checkpoint-{manifest.step}",
            concurrency=session.settings.upload_concurrency,
            on_bytes=count,
            finish=finish,
        )
    if fetched == whole.bytes:
        session.read_back.add(commit.number)
    session.events.info(
        "restore",
        f"{commit.name} (log entry {commit.number}) restored and verified: {size_text(fetched)} fetched, "
        f"{size_text(manifest.bytes - fetched)} were here; {purpose}",
        step=commit.step,
        number=commit.number,
        fetched=fetched,
    )


def _topic(session: Session) -> str:
    return f"restore/{session.node}"


def _say_waiting(session: Session, commit: Commit) -> None:
    here = session.ranks.look(_topic(session))
    what = "the other nodes" if session.leads else f"this node ({here})" if here else "this node"
    session.events.sign_of_life(f"still waiting for {commit.name} to be restored on {what}")


def conversion_for(session: Session, wish: Wish, manifest: Manifest) -> Conversion | None:
    """Return how a checkpoint is made loadable for this many ranks; None where it is already."""
    return wish.convert(manifest.paths, manifest.world_size, session.ranks.world_size)


def _share_of_node(session: Session, wish: Wish, manifest: Manifest) -> Manifest:
    if session.place is None or manifest.world_size != session.ranks.world_size:
        return manifest
    wanted = wish.wanted(manifest.paths, session.place.nodes[session.node], manifest.world_size)
    return replace(manifest, files=tuple(entry for entry in manifest.files if entry.path in wanted))
