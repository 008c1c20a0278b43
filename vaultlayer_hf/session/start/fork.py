"""A fork: a new vault's run begins from a commit of another vault, which is only read.

While the new vault holds no checkpoint, each start begins from there; from its first commit on it is a vault as any
other. The claim notes where the run comes from. A fork that died before its first commit begins from the same commit
again, whatever the other vault has come to hold since: its claim says from which.

There is no walk back: a fork is a choice of a checkpoint, and another one would be another run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import (
    CorruptError,
    NoSuchCheckpointError,
    NoUsableCheckpointError,
    ObjectNotFoundError,
    StoreError,
    VaultUnreachableError,
)
from vaultlayer_hf.session.access import Access
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.bring import bring_everywhere
from vaultlayer_hf.session.start.choice import Fork
from vaultlayer_hf.session.start.look import look
from vaultlayer_hf.session.start.ready import make_ready
from vaultlayer_hf.vault.log.archive import of_step
from vaultlayer_hf.vault.log.entry import Commit, VaultState
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.log.origin import BEST, FORK
from vaultlayer_hf.vault.manifest import read_manifest
from vaultlayer_hf.vault.near import near_vault
from vaultlayer_hf.vault.signature import keys


def choose_fork(origin: Access, noted: Mapping[str, Any]) -> Fork:
    """Choose the commit that a run begins from. On rank 0.

    ``noted``: detail of the new vault's newest claim. Raises NoSuchCheckpointError, VaultUnreachableError.
    """
    address, unsigned = origin.address, keys() is not None and _is_unsigned(origin)
    state = _state(origin, keyed=not unsigned)
    before = noted.get(FORK)
    step = state.best_step if address.best else address.step
    commits = of_step(state.commits, step) if address.named else []
    if not address.named and state.newest is not None:
        commits = [state.newest]
    if isinstance(before, dict) and before.get("vault_id") == state.vault_id:
        same = [one for one in state.commits if one.number == before.get("number")]
        # Who names another step now wants that one; the best may be another one than it was.
        alike = step is None or (address.best and before.get(BEST)) or [one.step for one in same] == [step]
        commits = same if same and alike else commits
    if not commits:
        steps = ", ".join(str(commit.step) for commit in state.commits) or "none"
        what = (
            "best checkpoint"
            if address.best
            else f"checkpoint of step {step}"
            if address.named
            else "checkpoint"
        )
        raise NoSuchCheckpointError(
            f"fork={str(address)!r}: that vault holds no {what}; it has: {steps}. Nothing begins at step 0 in silence: "
            "name one of them"
        )
    plain = _is_plain(origin, commits[0])
    if plain:
        origin.without_key()
    return Fork(address.uri, commits[0], state, plain, unsigned, address.best)


def _is_plain(origin: Access, commit: Commit) -> bool:
    """Tell whether a commit's files aren't encrypted although a key is set: that key is the new vault's then."""
    try:
        return (
            bool(origin.bare.encryption)
            and not read_manifest(origin.store, commit, with_key=False).encryption
        )
    except CorruptError:
        return False  # said, with its reason, where it is begun from
    except StoreError as error:
        raise origin.unreachable(error) from error


def _is_unsigned(origin: Access) -> bool:
    """Tell whether a vault was made and written to without a key: its first entry and its newest aren't signed.

    Entries are never deleted. So one that was signed, and to whose end somebody without the key has written, isn't it.
    """
    try:
        log = Log(origin.store, keyed=False)
        _, newest = log.last()
        return newest is not None and not newest.signed and not log.read(1).signed
    except (CorruptError, ObjectNotFoundError):
        return False
    except StoreError as error:
        raise origin.unreachable(error) from error


def _state(origin: Access, *, keyed: bool) -> VaultState:
    try:
        _, entry = origin.last(keyed=keyed)
    except VaultUnreachableError as error:
        if not isinstance(error.__cause__, ObjectNotFoundError):
            raise
        entry = None
    if entry is not None:
        return entry.state
    near = near_vault(origin.address)
    meant = f"did you mean {near}? Else check its name" if near is not None else "check its name"
    raise NoSuchCheckpointError(
        f"fork={str(origin.address)!r}: there is no vault, and nothing begins at step 0 in silence: {meant}, or leave "
        "out fork"
    )


def begin_fork(session: Session, seam_files: CheckpointFiles, fork: Fork) -> Path:
    """Bring the commit that a run begins from, and return its local folder. All ranks.

    Raises, on all ranks, NoUsableCheckpointError, and what ``resume`` raises.
    """
    origin, commit = session.origin, fork.commit
    assert origin is not None
    if fork.plain:
        origin.without_key()
    keyed = ". That vault isn't encrypted, and this one is" if fork.plain else ""
    session.events.info(
        EventKind.NOTICE,
        f"{session.address.uri} holds no checkpoint: the run begins as a fork of step {commit.step} of {fork.uri} (log "
        f"entry {commit.number}), where nothing is written. Started again, it goes on from what it commits here{keyed}",
        step=commit.step,
    )
    if fork.unsigned:
        session.events.warn(
            EventKind.NOTICE,
            f"{fork.uri} isn't signed, and this vault is: what the run begins from is vouched for by nobody, and what "
            "it commits by this key. Fork only what you trust",
        )
    manifest, reason = look(origin, session, seam_files, commit)
    if manifest is not None:
        purpose = f"the fork begins at step {commit.step}"
        reason = bring_everywhere(session, seam_files, commit, manifest, purpose=purpose, source=origin)
    if manifest is None or reason is not None:
        raise NoUsableCheckpointError(
            f"fork: {commit.name} (log entry {commit.number}) of {fork.uri} can't be begun from, so nothing was "
            f"loaded: {reason}. Look with `vl verify {fork.uri}`, and name another one as @STEP"
        )
    session.forked = commit
    session.start_uploads(None)
    return make_ready(origin, session, seam_files, fork.state, manifest)
