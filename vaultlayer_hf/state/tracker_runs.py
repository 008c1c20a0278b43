"""Which runs the experiment trackers had, kept with each checkpoint: ``vaultlayer_trackers.json``.

{"format": 1, "runs": {"wandb": {"id": "681bi5e2", "url": "..."}, "tensorboard": {"folder": "runs/..."}}}
"""

from __future__ import annotations

import json

FILE = "vaultlayer_trackers.json"
_FORMAT = 1
Runs = dict[str, dict[str, str]]
"""What names the run of each tracker, by the tracker's name."""


def encode_runs(runs: Runs) -> bytes:
    """Return the file's content."""
    return json.dumps({"format": _FORMAT, "runs": runs}, sort_keys=True).encode()


def decode_runs(content: bytes | None) -> Runs:
    """Return what a file says; nothing where there is none, or it can't be read: it only ever adds comfort."""
    try:
        found = json.loads(content or b"")
        runs = found["runs"] if found["format"] == _FORMAT else {}
        return {str(name): {str(key): str(value) for key, value in run.items()} for name, run in runs.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def runs_text(runs: Runs) -> str:
    """Say which runs these are: what a person looks for in each tracker."""
    return ", ".join(
        f"{name} {run.get('url') or run.get('id') or run.get('name') or run.get('folder') or ''}".rstrip()
        for name, run in sorted(runs.items())
    )
