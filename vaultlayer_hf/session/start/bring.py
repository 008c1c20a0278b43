"""Bring a commit to the disks: on each node once what its ranks load, whichever node wrote it. All or none."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.base.text import bytes_bar, size_text
from vaultlayer_hf.errors import CorruptError, ResumeError, StoreError, VaultLayerError
from vaultlayer_hf.session.access import Access
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles, Conversion
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start import relay
from vaultlayer_hf.session.start.relay import Relay
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.restore.ranges import ByteSource
from vaultlayer_hf.vault.restore.restore import restore

_STATUS_SECONDS = 5.0
"""Time between two reports of how far a node's restore is."""
_CONVERSION_SECONDS = 1200.0
"""Time that a conversion may take on top of a restore."""
_SLOWEST_BYTES_PER_SECOND = 2e6
"""A node that restores more slowly than this counts as gone."""


def bring_everywhere(
    session: Session,
    expected: CheckpointFiles,
    commit: Commit,
    manifest: Manifest,
    purpose: str,
    source: Access | None = None,
) -> str | None:
    """Restore a commit on every node; return why the commit itself is bad, raise any other error on all ranks.

    ``source``: the vault that holds it; None: this run's own.
    """
    slow = _CONVERSION_SECONDS if conversion_for(session, expected, manifest) is not None else 0.0
    bound = slow + session.settings.resume_timeout + session.settings.part_timeout
    bound += manifest.bytes / _SLOWEST_BYTES_PER_SECOND
    with ExitStack() as stack:
        # Whatever ends this, Ctrl-C too: no open server stays behind, and nobody waits for a node that has gone.
        stack.enter_context(session.ranks.leaving_where_interrupted())
        passing = _relay(session, expected, manifest)
        if passing is not None:
            stack.callback(passing.close)
        failure = None
        if session.leads_node:
            origin = source or session.access
            failure = _try_to_bring(session, expected, commit, manifest, purpose, passing, origin)
        else:
            session.events.info(EventKind.WAITING, f"waiting for {commit.name} to be restored on this node")
        answers = session.ranks.gather(failure, timeout=bound, on_wait=lambda: _say_waiting(session, commit))
    failures = [found for found in answers if found is not None]
    for found in failures:
        if not isinstance(found, CorruptError):
            raise found
    return str(failures[0]) if failures else None


def _try_to_bring(
    session: Session,
    expected: CheckpointFiles,
    commit: Commit,
    manifest: Manifest,
    purpose: str,
    passing: Relay | None,
    origin: Access,
) -> VaultLayerError | None:
    """Restore on this node; return what all ranks are to raise where that failed, whatever it was."""
    try:
        _bring(session, expected, commit, manifest, purpose, passing, origin)
    except StoreError as error:
        return session.ranks.named(origin.unreachable(error))
    except OSError as error:
        what = f"{commit.name} can't be restored to {session.output_dir}: {error}"
        return session.ranks.named(ResumeError(what))
    except Exception as error:
        return session.ranks.named(error)
    return None


def _relay(session: Session, expected: CheckpointFiles, manifest: Manifest) -> Relay | None:
    """Connect the nodes, where there is enough that all of them need; on leaders. All ranks. Raises RanksError."""
    place = session.topology
    if place is None or len(place.nodes) < 2:
        return None
    # A file is loaded either by one rank, hence one node, or by every rank. So what two nodes both load, all load:
    # comparing nodes 0 and 1 is enough, however many there are.
    first, second = (set(_share_of_node(session, expected, manifest, node).files) for node in (0, 1))
    common = [entry for entry in manifest.files if entry in first and entry in second]
    if sum(entry.size for entry in common) < relay.SMALLEST:
        return None
    mine: Relay | None = None
    if session.leads_node and (host := relay.own_address()) is not None:
        try:
            mine = Relay(session.node, host)
        except OSError:
            pass  # the others do without this node, and this one without them
    own = (session.node, mine.address) if mine is not None else None
    try:
        key, found = session.ranks.decide(own, lambda found: (uuid.uuid4().hex, found))
    except BaseException:
        if mine is not None:
            mine.close()
        raise
    if mine is not None:
        peers = dict(each for each in found if each is not None)
        mine.connect(key, peers, common, relay.stretches(common, len(place.nodes)))
    return mine


def _bring(
    session: Session,
    expected: CheckpointFiles,
    commit: Commit,
    manifest: Manifest,
    purpose: str,
    passing: Relay | None,
    origin: Access,
) -> None:
    """Restore what this node's ranks load of a commit."""
    whole, manifest = manifest, _share_of_node(session, expected, manifest, session.node)
    conversion = conversion_for(session, expected, whole)
    store = origin.store

    def finish(staging: Path) -> None:
        if passing is not None:
            passing.end()
        if conversion is not None:
            conversion.of_folder(staging)
        for name, data in expected.localised(staging, session.output_dir, manifest.versions).items():
            files.write_file(staging / name, data)

    moved, reported = 0, time.monotonic()

    def count(size: int) -> None:
        nonlocal moved, reported
        moved += size
        bar.update(size)
        if time.monotonic() - reported > _STATUS_SECONDS:
            reported = time.monotonic()
            session.ranks.set_status(_topic(session), f"{size_text(moved)} of {size_text(manifest.bytes)}")

    def attempt(source: Callable[[Path, set[str]], ByteSource] | None) -> int:
        nonlocal moved
        moved = 0
        bar.reset()
        return restore(
            store,
            commit.folder,
            manifest,
            session.output_dir / f"checkpoint-{manifest.step}",
            concurrency=session.settings.upload_concurrency,
            on_bytes=count,
            finish=finish,
            source=source,
        )

    taken = 0
    with bytes_bar(manifest.bytes, f"Restoring {commit.name}", shown=session.progress) as bar:
        try:
            if passing is None:
                fetched = attempt(None)
            else:
                fetched = attempt(lambda staging, there: passing.source(store, commit.folder, staging, there))
                taken = passing.taken
        except CorruptError:
            if passing is None or not passing.taken:
                raise
            fetched = attempt(None)  # whether it is the store's bytes that are bad, only they can tell
        finally:
            if passing is not None:
                passing.end()
    if fetched == whole.bytes and not taken and origin is session.access:
        session.read_back.add(commit.number)
    passed = f"{size_text(taken)} of them by way of other nodes, " if taken else ""
    session.events.info(
        EventKind.RESTORE,
        f"{commit.name} (log entry {commit.number}) restored and verified: {size_text(fetched)} fetched, {passed}"
        f"{size_text(manifest.bytes - fetched)} were on this disk; {purpose}",
        step=commit.step,
        number=commit.number,
        fetched=fetched,
        taken=taken,
    )


def _topic(session: Session) -> str:
    return f"restore/{session.node}"


def _say_waiting(session: Session, commit: Commit) -> None:
    here = session.ranks.get_status(_topic(session))
    what = "the other nodes" if session.leads_node else f"this node ({here})" if here else "this node"
    session.events.sign_of_life(f"still waiting for {commit.name} to be restored on {what}")


def conversion_for(session: Session, expected: CheckpointFiles, manifest: Manifest) -> Conversion | None:
    """Return how a checkpoint is made loadable for this many ranks; None where it is already."""
    return expected.conversion(manifest.paths, written=manifest.world_size, now=session.ranks.world_size)


def _share_of_node(session: Session, expected: CheckpointFiles, manifest: Manifest, node: int) -> Manifest:
    if session.topology is None or manifest.world_size != session.ranks.world_size:
        return manifest
    wanted = expected.wanted(manifest.paths, session.topology.nodes[node], world_size=manifest.world_size)
    return replace(manifest, files=tuple(entry for entry in manifest.files if entry.path in wanted))
