"""The vault, and the checkpoint in it, that a person has named to a command; and what is said where it isn't there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from vaultlayer_hf import errors
from vaultlayer_hf.cli.common import PATIENCE, ExitCode, fail

if TYPE_CHECKING:
    from vaultlayer_hf.vault.log.entry import Commit
    from vaultlayer_hf.vault.reader.vault import Vault

_SHOWN = 3
"""Vaults of a folder that are named."""


def open_if_there(uri: str) -> Vault | None:
    """Open a vault for reading; None where there is none yet.

    Raises VaultUriError, MissingExtraError, StoreError, CorruptError.
    """
    from vaultlayer_hf.vault.reader.open import open_vault

    try:
        return open_vault(uri, patience=PATIENCE)
    except errors.ObjectNotFoundError:
        return None


def of_run_here(address: str | None) -> str:
    """Return the vault that was named; where none was, that of the run that was started here, which is said.

    Where no run was, it is that of VAULTLAYER_VAULT. Raises typer.Exit where there is neither.
    """
    if address is not None:
        return address
    from vaultlayer_hf.cli.run_folders import find_run

    run = find_run(None)
    if run is not None and run.vault is not None:
        typer.echo(f"vl: {run.vault}, the vault of the run in {run.folder}", err=True)
        return run.vault
    if named := os.environ.get("VAULTLAYER_VAULT", "").strip():
        typer.echo(f"vl: {named}, as VAULTLAYER_VAULT says", err=True)
        return named
    raise fail(
        ExitCode.USAGE, "no run was started in this folder, so name the vault, such as s3://bucket/my-run"
    )


def no_vault(address: str) -> str:
    """Return the sentence that there is no vault, with the name of one beside it that may have been meant."""
    from vaultlayer_hf.cli.run_folders import vault_of_run
    from vaultlayer_hf.stores.uri import parse_vault
    from vaultlayer_hf.vault.near import near_vault, vaults_within

    place = parse_vault(address)
    said = f"there is no vault at {place.uri} yet"
    within = vaults_within(place)
    if len(within) > 1:
        more = f" and {len(within) - _SHOWN} more" if len(within) > _SHOWN else ""
        return f"{said}: {len(within)} lie in it, {', '.join(within[:_SHOWN])}{more}"
    near = near_vault(place)
    if place.scheme == "file" and (used := vault_of_run(place.path)) is not None:
        return f"{said}: the vault of the run that was started there is {used}"
    if near is None and place.scheme == "file" and _is_output_dir(place.path):
        return f"{said}: it holds checkpoints of a Trainer, and a vault lies where resume= or --vault says"
    return said + (f": did you mean {near}?" if near else "")


def _is_output_dir(path: str) -> bool:
    """Tell whether a folder is one that the Trainer writes to, or one of its checkpoints."""
    try:
        names = [os.path.basename(path), *os.listdir(path)]
    except OSError:
        return False
    return any(name.startswith("checkpoint-") for name in names)


def no_step(vault: Vault, step: int) -> str:
    """Return the sentence that a vault holds no checkpoint of a step, with the steps that it holds."""
    steps = ", ".join(str(commit.step) for commit in vault.checkpoints())
    return f"{vault.uri} holds no checkpoint of step {step}" + (f"; it holds: {steps}" if steps else "")


def refuse_step(address: str, what: str) -> None:
    """Refuse ``VAULT@STEP`` where a command is about the whole vault: ``what``. Raises typer.Exit."""
    from vaultlayer_hf.stores.uri import parse_vault

    named = parse_vault(address).named
    if named:
        raise fail(
            ExitCode.USAGE, f"{address} names a checkpoint, and {what} the whole vault: leave out @{named}"
        )


@contextmanager
def open_at(address: str, entry: int | None = None) -> Iterator[tuple[Vault, Commit]]:
    """Open a vault with the checkpoint that ``VAULT[@STEP]`` means, or that of a log entry.

    Raises NoSuchCheckpointError where it isn't there, and what ``open_if_there`` does.
    """

    vault = open_if_there(address)
    if vault is None:
        raise errors.NoSuchCheckpointError(no_vault(address))
    with vault:
        if entry is None:
            yield vault, vault.checkpoint(step_at(vault, address))
            return
        found = next((one for one in vault.checkpoints() if one.number == entry), None)
        if found is None:
            raise errors.NoSuchCheckpointError(
                f"{vault.uri} holds no checkpoint of log entry {entry}; `vl logs` names the entries"
            )
        yield vault, found


def step_at(vault: Vault, address: str) -> int | None:
    """Return the step that ``VAULT[@STEP]`` means; None for the newest. Raises NoSuchCheckpointError."""
    from vaultlayer_hf.stores.uri import parse_vault
    from vaultlayer_hf.vault.log.origin import FORK, fork_of

    place = parse_vault(address)
    newest = vault.state.newest if vault.state is not None else None
    if address.rstrip("/").endswith("@latest") and not place.uri.endswith("@latest") and newest is not None:
        return newest.step
    if not place.best:
        return place.step
    if vault.state is None or vault.state.best_step is None:
        raise errors.NoSuchCheckpointError(
            f"{vault.uri} knows no best checkpoint: a Trainer with metric_for_best_model names one; name a step"
        )
    best = vault.state.best_step
    if newest is not None and all(commit.step != best for commit in vault.state.commits):
        claim = fork_of(vault.history(), newest)
        fork = claim.detail[FORK] if claim is not None else None
        if fork is not None and best <= fork["step"]:
            raise errors.NoSuchCheckpointError(
                f"the best checkpoint of {vault.uri} is that of step {best} of the run that it was forked from: name "
                f"{fork['uri']}@{best}"
            )
    return best


def full_uri(uri: str) -> str:
    """Return a vault's URI in its canonical form, for messages."""
    from vaultlayer_hf.stores.uri import parse_vault

    return parse_vault(uri).uri
