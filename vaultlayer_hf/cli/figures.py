"""Losses and metrics that a checkpoint's own files hold: the Trainer's trainer_state.json, a loop's vaultlayer.json."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from vaultlayer_hf.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultlayer_hf.vault.log.entry import Commit
    from vaultlayer_hf.vault.reader.vault import Vault

_AT_ONCE = 8
"""Checkpoints that are read side by side: a request to a bucket is mostly waiting."""
_SPEEDS = ("_runtime", "_per_second", "_time", "_num_tokens")
"""How the names of those numbers end that the Trainer logs with an evaluation and that say nothing of the model."""


def parsed(data: bytes | None) -> dict[str, Any]:
    """Return the JSON object in a file's content; empty where there is none."""
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def logged(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a trainer_state.json says was logged, oldest first."""
    history = state.get("log_history")
    return [item for item in history if isinstance(item, dict)] if isinstance(history, list) else []


def is_figure(name: str, value: object) -> bool:
    """Tell whether something that was logged is the loss, or a metric of an evaluation."""
    metric = name.startswith("eval_") and not name.endswith(_SPEEDS)
    return (name == "loss" or metric) and type(value) in (int, float)


def newest_figures(state: dict[str, Any], about: dict[str, Any]) -> dict[str, float]:
    """Return the newest loss and the metrics of the newest evaluation, by name. Pure.

    Args:
        state: what is in trainer_state.json; empty where there is none.
        about: what is in vaultlayer.json, which a ``Checkpointer`` writes.
    """
    found: dict[str, float] = {}
    for item in [about, *logged(state)]:
        for name, value in item.items():
            if is_figure(name, value):
                found[name] = value
    return found


def read_figures(vault: Vault, commits: Sequence[Commit]) -> list[dict[str, float]]:
    """Return ``newest_figures`` of each checkpoint: two small requests each. Raises StoreError."""

    def read(commit: Commit) -> dict[str, float]:
        try:
            return newest_figures(
                parsed(vault.read(commit, "trainer_state.json")),
                parsed(vault.read(commit, "vaultlayer.json")),
            )
        except CorruptError:  # what `vl verify` is for
            return {}

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(read, commits))
