"""What a commit makes superfluous, in the vault and on the local disk. Trouble here costs nothing but space."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.log.log import Writer
from vaultlayer_hf.vault.retention.policy import Policy, RetentionDecision, decide_retention
from vaultlayer_hf.vault.retention.prune import retire
from vaultlayer_hf.vault.snapshot import LOCAL


def tidy_vault(
    store: Store, writer: Writer, policy: Policy, protected: set[int], *, finite: int | None = None
) -> list[RetentionDecision]:
    """Apply the retention policy to a vault and return what was retired. Raises FencedError, StoreError.

    ``protected`` and ``finite`` as for ``decide_retention``.
    """
    state = writer.state
    decisions = decide_retention(
        state.commits, policy, best_step=state.best_step, protected=protected, finite=finite
    )
    drop = [decision for decision in decisions if not decision.keep]
    if not drop and not state.retiring:
        return []
    reasons = {decision.commit.number: decision.reason for decision in drop}
    gone = retire(store, writer, [decision.commit for decision in drop], reasons)
    return [decision for decision in drop if decision.commit.number in gone]


def tidy_local(output_dir: Path, state: VaultState, policy: Policy, protected: set[int]) -> list[str]:
    """Apply a retention policy to committed checkpoint folders in ``output_dir``; return the names removed.

    A folder there is named by its step, and belongs to the newest commit of that step. It goes by one rename,
    and ``clear_superseded`` deletes it: where the Trainer looks through its folders meanwhile, it must not
    meet half a one. Raises OSError.
    """
    newest = {item.step: item for item in state.commits}
    here = [item for item in state.commits if item is newest[item.step]]
    here = [item for item in here if (output_dir / f"checkpoint-{item.step}").is_dir()]
    removed = []
    for decision in decide_retention(here, policy, best_step=state.best_step, protected=protected):
        if not decision.keep:
            removed.append(f"checkpoint-{decision.commit.step}")
            take_out(output_dir / removed[-1], output_dir)
    return removed


def take_out(folder: Path, output_dir: Path) -> None:
    """Take a folder out of ``output_dir`` by one rename; ``clear_trash`` deletes it. Raises OSError."""
    files.make_folder(output_dir / LOCAL)
    # Not flushed: one that a power cut brings back is an old checkpoint, no more.
    files.rename(folder, output_dir / LOCAL / f"old-{uuid.uuid4().hex}", flush=False)


def clear_superseded(output_dir: Path, snapshots: Path, step: int, former: Sequence[Path] = ()) -> None:
    """Remove what a commit of ``step`` makes pointless: folders put aside, older writers' snapshots, and trash.

    ``snapshots`` is the folder of the snapshots of the writer that has committed, ``former`` where the run had its
    output before.
    """
    for path in (output_dir / LOCAL / "aside").glob("checkpoint-*"):
        if int(path.name.removeprefix("checkpoint-")) <= step:
            files.remove_tree(path)
    for writers in (snapshots.parent, *(place / LOCAL / snapshots.parent.name for place in former)):
        for path in writers.iterdir() if writers.is_dir() else ():
            if path.name.isdigit() and int(path.name) < int(snapshots.name):
                files.remove_tree(path)
    clear_trash(output_dir)


def clear_trash(output_dir: Path) -> None:
    """Delete the folders that ``take_out`` and restores have taken out."""
    for path in (output_dir / LOCAL).glob("old-*"):
        files.remove_tree(path)
