"""`vl copy`: copy a vault to another store, verified; a copy that was stopped goes on where it was."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vaultlayer_hf.base.text import bytes_bar, size_text
from vaultlayer_hf.cli.common import (
    GOES_ON,
    PATIENCE,
    DebugOption,
    ExitCode,
    JsonOption,
    fail,
    on_terminal,
    one_line_errors,
)
from vaultlayer_hf.cli.named_vault import no_vault, open_if_there

SourceArgument = Annotated[str, typer.Argument(metavar="SRC", help="The vault to copy.")]
TargetArgument = Annotated[str, typer.Argument(metavar="DST", help="Where to: any store, an unused place.")]


def copy(
    source: SourceArgument,
    target: TargetArgument,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Copy a vault with its log to another store and verify it; start it again to go on where it was stopped.

    The copy is a vault of its own, with another id and a note of where it comes from: a run goes on from it as from the
    first one. One file at a time passes through the folder for temporary files (TMPDIR).

    Example: vl copy s3://bucket/my-run gs://bucket/my-run
    """
    with one_line_errors(debug, GOES_ON):
        from vaultlayer_hf.session.start.own_place import check_free
        from vaultlayer_hf.stores import open_store
        from vaultlayer_hf.stores.probe import probe_create
        from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
        from vaultlayer_hf.stores.uri import parse_vault
        from vaultlayer_hf.vault.reader.copy import copy_vault

        here, there = parse_vault(source), parse_vault(target)
        if here.named or there.named:
            raise fail(
                ExitCode.USAGE, "a vault is copied whole: leave out @…; vl pull copies one checkpoint out"
            )
        if here.uri == there.uri:
            raise fail(ExitCode.USAGE, "SRC and DST are the same vault")
        vault = open_if_there(source)
        if vault is None:
            raise fail(ExitCode.FAILED, no_vault(source))
        stores = [
            RetryingStore(open_store(address, create=create), RetryPolicy(deadline=6 * PATIENCE))
            for address, create in ((here, False), (there, True))
        ]
        check_free(there, stores[1])
        probe_create(stores[1])
        total = sum(commit.bytes for commit in vault.checkpoints())
        with bytes_bar(total, "copy", shown=on_terminal(), leave=False) as bar:
            done = copy_vault(stores[0], stores[1], bar.update)
        found = {
            "source": here.uri,
            "target": there.uri,
            "vault_id": done.vault_id,
            "steps": [commit.step for commit in done.commits],
            "bytes": done.copied + done.there,
            "copied": done.copied,
            "entries": done.entries,
        }
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        was = f", {size_text(done.there)} of it was there" if done.there else ""
        typer.echo(
            f"{there.uri}: {len(done.commits)} checkpoints, verified, {size_text(done.copied + done.there)}{was};"
            f" {done.entries} log entries"
        )
