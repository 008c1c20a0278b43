"""Discover: what a start may go on from, as the vault's log says it. Read only, on rank 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaultlayer_hf.errors import (
    CorruptError,
    NoSuchCheckpointError,
    NoUsableCheckpointError,
    ObjectNotFoundError,
    StoreError,
)
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.choice import StartChoice, choose_start
from vaultlayer_hf.session.start.fork import choose_fork
from vaultlayer_hf.session.start.own_place import check_place
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.vault.keys import DATA
from vaultlayer_hf.vault.log.entry import Entry, VaultState
from vaultlayer_hf.vault.log.vanished import find_vanished
from vaultlayer_hf.vault.near import near_vault


def choose(session: Session, number: int, entry: Entry | None) -> StartChoice:
    """Choose what to go on from, before the claim. On rank 0.

    Raises NoSuchCheckpointError, VaultUnreachableError, VaultUriError.
    """
    address = session.address
    if entry is None:
        if number == 0:
            _check_place(session)
        if number == 0 and address.named:
            check_no_damage(session, number, entry)
            what = f"checkpoint of step {address.step}" if address.step is not None else "best checkpoint"
            raise NoSuchCheckpointError(
                f"{address.uri} is empty, so it has no {what}, and training doesn't start at step 0 in silence: "
                f"{_nearby(address)}check the vault's name, or leave out @{address.named} to begin a run there"
            )
        if session.origin is not None:
            check_no_damage(session, number, entry)
            return StartChoice((), fork=choose_fork(session.origin, {}))
        return StartChoice(())
    if session.origin is not None and entry.state.newest is None:
        check_no_damage(session, number, entry)
    return choose_from(session, entry.state)


def _check_place(session: Session) -> None:
    try:
        check_place(session.address, session.output_dir, session.access.store)
    except StoreError as error:
        raise session.access.unreachable(error) from error


def _nearby(address: VaultAddress) -> str:
    near = near_vault(address)
    return f"did you mean {near}@{address.named}? Else " if near is not None else ""


def choose_from(session: Session, state: VaultState) -> StartChoice:
    """Choose what to go on from in a vault that is in this state. On rank 0. Raises as ``choose``."""
    address = session.address
    if session.origin is not None and state.newest is None and not address.named:
        return StartChoice((), fork=choose_fork(session.origin, claim_detail(session, state.token)))
    step = state.best_step if address.best else address.step
    step = session.at_step if session.at_step is not None else step
    claims: dict[int, Mapping[str, Any]] = {}
    if address.named or any(commit.left_behind for commit in state.commits):
        for token in {state.token, *([state.newest.token] if state.newest is not None else [])}:
            claims[token] = claim_detail(session, token)
    again = session.at_step is not None
    return choose_start(
        state, step, claims, uri=address.uri, name="" if again else address.named, again=again
    )


def claim_detail(session: Session, token: int) -> Mapping[str, Any]:
    """Return what a claim notes; nothing where it can't be read. Raises VaultUnreachableError."""
    try:
        return session.access.log().read(token).detail
    except (CorruptError, ObjectNotFoundError):
        return {}
    except StoreError as error:
        raise session.access.unreachable(error) from error


def check_no_damage(session: Session, number: int, entry: Entry | None) -> None:
    """Raise NoUsableCheckpointError where a log that shows no checkpoint has lost what could have shown one."""
    if entry is not None and entry.number == number:
        check_none_vanished(session, number)
        return
    if entry is not None:
        raise _lost(
            session, f"its log is damaged after entry {entry.number}, and shows no checkpoint up to there"
        )
    try:
        headless = any(True for _ in session.access.store.list(DATA))
    except StoreError as error:
        raise session.access.unreachable(error) from error
    if headless:
        raise _lost(session, f"its log is gone, and checkpoints lie under {DATA}")


def check_none_vanished(session: Session, number: int) -> None:
    """Raise NoUsableCheckpointError where the log had a checkpoint to go on from, and entry ``number`` denies it."""
    try:
        vanished = find_vanished(session.access.store, session.access.log(), number)
    except StoreError as error:
        raise session.access.unreachable(error) from error
    if vanished is not None:
        raise _lost(session, vanished)


def _lost(session: Session, lost: str) -> NoUsableCheckpointError:
    return NoUsableCheckpointError(
        f"{session.address.uri}: {lost}, so nothing was loaded, and training doesn't start at step 0 in silence. A "
        "checkpoint folder there can be copied out and named in train(resume_from_checkpoint=…); to start over, "
        "name another vault"
    )
