"""`vl show`: one checkpoint: what it is, and its files with sizes and digests. Reads its manifest only."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.cli.common import (
    DebugOption,
    EntryOption,
    JsonOption,
    RunsCheckpointArgument,
    one_line_errors,
    when_text,
)
from vaultlayer_hf.cli.ls import state_text
from vaultlayer_hf.cli.named_vault import of_run_here, open_at
from vaultlayer_hf.cli.tables import print_table, say
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.state.tracker_runs import FILE, decode_runs, runs_text

if TYPE_CHECKING:
    from vaultlayer_hf.state.tracker_runs import Runs
    from vaultlayer_hf.vault.log.entry import Commit
    from vaultlayer_hf.vault.reader.vault import Vault

_DIGITS = 12
"""How many hex digits of a digest a person is shown; --json has all."""


def show(
    checkpoint: RunsCheckpointArgument = None,
    entry: EntryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show one checkpoint: its files with sizes and digests, versions, world size.

    Example: vl show s3://bucket/my-run@500
    """
    with one_line_errors(debug), open_at(of_run_here(checkpoint), entry) as (vault, commit):
        found = describe(vault, commit)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            _print(found)


def describe(vault: Vault, commit: Commit) -> dict[str, Any]:
    """Return what `vl show --json` prints. Raises CorruptError, StoreError."""
    manifest = vault.manifest(commit)
    origin = next((item for item in vault.checkpoints() if item.number == manifest.resumed_from), None)
    return {
        "vault": vault.uri,
        "step": commit.step,
        "state": state_text(
            commit,
            vault.state.newest if vault.state else None,
            vault.state.best_step if vault.state else None,
        ),
        "number": commit.number,
        "token": commit.token,
        "save": commit.seq,
        "time": commit.time,
        "folder": commit.folder,
        "bytes": commit.bytes,
        "world_size": manifest.world_size,
        "resumed_from": manifest.resumed_from,
        "resumed_from_step": origin.step if origin else None,
        "forked_from": vault.forked_from(commit) if manifest.resumed_from is None else None,
        "best_step": manifest.best_step,
        "parameters": {
            "tensors": len(manifest.parameters),
            "numbers": sum(math.prod(shape) for _, shape, _ in manifest.parameters),
            "dtypes": sorted({dtype for _, _, dtype in manifest.parameters}),
        },
        "versions": manifest.versions,
        "encryption": manifest.encryption or None,
        "trackers": _trackers(vault, commit),
        "manifest": commit.manifest,
        "files": [asdict(entry) for entry in manifest.files],
    }


def _trackers(vault: Vault, commit: Commit) -> Runs:
    """Return which runs the trackers had; nothing where another key than the checkpoint's is set, or none."""
    try:
        return decode_runs(vault.read(commit, FILE))
    except SettingsError:
        return {}


def short(digest: str) -> str:
    """Return the beginning of a digest, for a person."""
    return f"{digest.rpartition(':')[2][:_DIGITS]}…"


def _print(found: dict[str, Any]) -> None:
    say(f"Step {found['step']} of {found['vault']}")
    origin = f"{found['forked_from']}: a fork" if found["forked_from"] else "step 0: a fresh run"
    if found["resumed_from"] is not None:
        step = found["resumed_from_step"]
        # A start that finds a newer checkpoint on its disk goes on from that one, which the manifest doesn't tell.
        origin = (
            f"log entry {found['resumed_from']}, {f'step {step}' if step is not None else 'retired since'}, or a newer "
            "checkpoint of its disk"
        )
    sizes = found["parameters"]
    dtypes = ", ".join(sizes["dtypes"])
    parameters = f"{sizes['numbers']:,} in {sizes['tensors']} tensors, {dtypes}" if dtypes else "not recorded"
    when = f"{when_text(found['time'])} (UTC), log entry {found['number']}, token {found['token']}"
    facts = [
        ("state", found["state"]),
        ("committed", when),
        ("resumed from", origin),
        ("world size", found["world_size"]),
        ("parameters", parameters),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(found["versions"].items()))),
        *([("trackers", runs_text(found["trackers"]))] if found["trackers"] else []),
        *([("encryption", f"AES-256-GCM, key {found['encryption']}")] if found["encryption"] else []),
        ("folder", found["folder"]),
        ("manifest", short(found["manifest"])),
    ]
    print_table(("", ""), facts, fold=[1])
    say("")
    files = [(item["path"], size_text(item["size"]), short(item["digest"])) for item in found["files"]]
    total = (f"{len(files)} files", size_text(found["bytes"]), "")
    print_table(("file", "size", "blake3"), [*files, total], right=[1], fold=[0], spare=[2])
