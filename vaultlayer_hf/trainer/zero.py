"""DeepSpeed's ZeRO on another number of ranks: its checkpoint, converted to a universal one by DeepSpeed itself.

A ZeRO checkpoint can be loaded only by as many ranks as have written it. ``ds_to_universal`` makes of it one
that any number can load: a folder beside the original, found through ``latest_universal`` where DeepSpeed's
configuration says ``"checkpoint": {"load_universal": true}``.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import WorldSizeError

_STEP = re.compile(r"(global_step\d+)/")
_PROGRAM = "deepspeed.checkpoint.ds_to_universal"
_LONGEST = 4 * 3600.0
"""Seconds after which a conversion counts as hanging."""


def configuration(args: Any) -> dict[str, Any] | None:
    """Return DeepSpeed's configuration in use by the Trainer's arguments; None where there is none."""
    plugin = getattr(args, "deepspeed_plugin", None)
    config = getattr(getattr(plugin, "hf_ds_config", None), "config", None)
    return config if isinstance(config, dict) else None


def loads_universal(config: dict[str, Any]) -> bool:
    """Tell whether a configuration asks for universal checkpoints."""
    return bool(config.get("checkpoint", {}).get("load_universal"))


def ask_for_universal(config: dict[str, Any]) -> None:
    """Make the engine, which doesn't exist yet, load a universal checkpoint."""
    config.setdefault("checkpoint", {})["load_universal"] = True


def can_convert() -> bool:
    """Tell whether this DeepSpeed can convert."""
    try:
        return importlib.util.find_spec(_PROGRAM) is not None
    except ImportError:
        return False


def convert(folder: Path, paths: Collection[str]) -> None:
    """Add the universal form of a ZeRO checkpoint to its folder. Takes its size once more on the disk.

    Raises WorldSizeError where DeepSpeed can't.
    """
    step = next((match[1] for path in sorted(paths) if (match := _STEP.match(path))), None)
    if step is None:
        raise WorldSizeError(f"{folder.name} holds no global_step folder that could be converted")
    command = [
        *(sys.executable, "-m", _PROGRAM, "--inject_missing_state"),
        *("--input_folder", str(folder / step), "--output_folder", str(folder / f"{step}_universal")),
        *("--num_extract_workers", "1", "--num_merge_workers", "1"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=False)
        reason = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    if reason:
        raise WorldSizeError(f"DeepSpeed can't convert {step} to a universal checkpoint: {reason}")
