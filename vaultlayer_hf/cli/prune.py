"""`vl prune --dry-run`: what retention would retire and delete, and what was never committed. Reads only."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.base.text import duration_text, size_text
from vaultlayer_hf.cli.common import DebugOption, ExitCode, JsonOption, VaultArgument, fail, one_line_errors
from vaultlayer_hf.cli.named_vault import no_vault, open_if_there, refuse_step
from vaultlayer_hf.cli.tables import print_table, say

if TYPE_CHECKING:
    from vaultlayer_hf.vault.reader.vault import Vault
    from vaultlayer_hf.vault.retention.policy import Policy

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Required: only the run itself may delete.")]
LastOption = Annotated[
    str | None, typer.Option("--keep-last", metavar="N|none", help="As VAULTLAYER_KEEP_LAST; none: all.")
]
EveryOption = Annotated[
    str | None, typer.Option("--keep-every", metavar="N|none", help="As VAULTLAYER_KEEP_EVERY.")
]


def prune(
    vault: VaultArgument,
    dry_run: DryRunOption = False,
    keep_last: LastOption = None,
    keep_every: EveryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what retention would retire and delete, and what was uploaded and never committed.

    Deleting needs the claim, which would end a run that is writing: so it is done by the run itself, after each
    commit. Without options the policy is that of the VAULTLAYER_KEEP_* variables, or the default.

    Example: vl prune s3://bucket/my-run --dry-run --keep-last 2
    """
    with one_line_errors(debug):
        if not dry_run:
            raise fail(
                ExitCode.USAGE,
                "vl prune deletes nothing: a run deletes what isn't kept, after each commit. Add --dry-run to see "
                "what it would delete",
            )
        from vaultlayer_hf.session.settings import Settings
        from vaultlayer_hf.vault.retention.policy import Policy

        refuse_step(vault, "retention is about")
        settings = Settings(vault=vault)
        policy = Policy(
            _count("--keep-last", keep_last, settings.keep_last),
            _count("--keep-every", keep_every, settings.keep_every),
            settings.keep_best,
        )
        opened = open_if_there(vault)
        if opened is None:
            raise fail(ExitCode.FAILED, no_vault(vault))
        with opened:
            found = plan(opened, policy, time.time())
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            _print(found)


def _count(option: str, text: str | None, default: int | None) -> int | None:
    """Return the number that an option means, None for ``none``. Raises typer.Exit for anything else."""
    if text is None:
        return default
    if text.strip().lower() == "none":
        return None
    if text.strip().isdigit() and int(text) >= 1:
        return int(text)
    raise fail(ExitCode.USAGE, f"{option} {text!r}: a number from 1 on, or none")


def plan(vault: Vault, policy: Policy, now: float) -> dict[str, Any]:
    """Return what `vl prune --dry-run --json` prints; ``now`` in seconds since the epoch. Raises StoreError."""
    from vaultlayer_hf.errors import CorruptError
    from vaultlayer_hf.vault.retention.policy import decide_retention
    from vaultlayer_hf.vault.retention.prune import ORPHAN_GRACE

    state = vault.state
    assert state is not None, "open_if_there gives no vault without entries"
    protected = set()
    if state.newest is not None:  # a run never retires what it went on from
        try:
            origin = vault.manifest(state.newest).resumed_from
        except CorruptError:
            origin = None
        protected |= {origin} if origin is not None else set()
    finite = vault.newest_finite()
    decisions = decide_retention(
        state.commits,
        policy,
        best_step=state.best_step,
        protected=protected,
        finite=finite.number if finite is not None else None,
    )
    retiring = set(state.retiring)
    leftovers = []
    for item in vault.leftovers():
        age = max(0.0, now - item.modified)
        if item.folder in retiring:
            fate = "retired: deleted after the next commit"
        elif item.mark is None:
            fate = "nothing shows that a run made it: never deleted"
        elif item.token >= state.token and state.finished is None:
            fate = "of the newest claim: perhaps being uploaded now"
        elif age > ORPHAN_GRACE:
            fate = "never committed: deleted by the next run"
        else:
            left = duration_text(ORPHAN_GRACE - age)
            fate = f"never committed: deleted by a run that starts in {left} or later"
        leftovers.append(
            {
                "folder": item.folder,
                "bytes": item.bytes,
                "objects": item.objects,
                "age_seconds": age,
                "fate": fate,
            }
        )
    return {
        "vault": vault.uri,
        "policy": {"keep_last": policy.last, "keep_every": policy.every, "keep_best": policy.best},
        "checkpoints": [
            {
                "step": item.commit.step,
                "number": item.commit.number,
                "bytes": item.commit.bytes,
                "keep": item.keep,
                "reason": item.reason,
            }
            for item in decisions
        ],
        "would_free": sum(item.commit.bytes for item in decisions if not item.keep),
        "leftovers": leftovers,
    }


def _print(found: dict[str, Any]) -> None:
    rows = [
        (
            item["step"],
            item["number"],
            size_text(item["bytes"]),
            "keep" if item["keep"] else "retire",
            item["reason"],
        )
        for item in found["checkpoints"]
    ]
    print_table(("step", "entry", "size", "", "because"), rows, right=[0, 1, 2], fold=[4], spare=[1])
    going = sum(not item["keep"] for item in found["checkpoints"])
    if going:
        say(f"{going} would be retired and deleted: {size_text(found['would_free'])}.")
    else:
        say("Nothing would be retired.")
    for item in found["leftovers"]:
        size, age = size_text(item["bytes"]), duration_text(item["age_seconds"])
        say(f"{item['folder']}: {size}, last changed {age} ago; {item['fate']}.")
