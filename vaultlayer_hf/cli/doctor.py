"""`vl doctor`: tries, small, what a run will do with a vault and a disk, and predicts what it will cost."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.cli.common import (
    PATIENCE,
    DebugOption,
    ExitCode,
    JsonOption,
    RunsVaultArgument,
    fail,
    one_line_errors,
    span,
)
from vaultlayer_hf.cli.named_vault import of_run_here
from vaultlayer_hf.cli.tables import print_items

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vaultlayer_hf.cli.checks import Finding

BYTES_PER_PARAMETER = 12
"""Weights in 32 bits and Adam's two moments: what the stock Trainer writes. In bf16 with 32-bit moments: 10."""

GUESSED_MODEL = "1B"
"""What is predicted for where no model is named and the vault holds no checkpoint. It is a guess: a disk too small for
it is worth a word, but a machine whose model is smaller must not be kept from training by it."""
_COLOURS = {"ok": "green", "WARNING": "yellow", "BAD": "bold red"}
_ASSUMED = f" (of a model of {GUESSED_MODEL}, which is assumed: --model names yours)"
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Parameters, such as 7B or 350M, or the checkpoint's size, such as 84GB; "
        f"without it, the vault's newest checkpoint counts, or {GUESSED_MODEL} is assumed.",
    ),
]
EveryOption = Annotated[
    float,
    typer.Option(
        "--save-every",
        metavar="SPAN",
        parser=span("--save-every", 0.5, bare=False),
        show_default=False,
        help="Time between two saves, such as 20min or 90s; default 30min.",
    ),
]
OutputOption = Annotated[Path, typer.Option("--output-dir", help="Where the Trainer writes its checkpoints.")]
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT]?I?)B|([MBT]))", re.IGNORECASE)


def doctor(
    vault: RunsVaultArgument = None,
    model: ModelOption = None,
    save_every: EveryOption = 1800.0,
    output_dir: OutputOption = Path(),
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check settings, credentials, create-if-absent, bandwidth, clock and disk; predict stall and minutes at risk.

    Writes short-lived objects of up to 64 MiB below probe/ in the vault, and removes them; a run that is
    writing isn't disturbed. Each finding comes with its fix.

    Example: vl doctor s3://bucket/my-run --model 7B --save-every 20min
    """
    with one_line_errors(debug):
        from vaultlayer_hf.cli.checks import (
            Measurements,
            check_apart,
            check_disk,
            check_libraries,
            check_settings,
            check_store,
        )
        from vaultlayer_hf.cli.prediction import judge, judge_copy, predict
        from vaultlayer_hf.state.capture.memory import free_memory
        from vaultlayer_hf.stores.uri import parse_vault

        # The variable first: it is what the next start will take, which this is about.
        named = vault or os.environ.get("VAULTLAYER_VAULT", "").strip() or of_run_here(None)
        named_size, interval = checkpoint_size(model) if model else None, save_every
        if model and named_size is None:
            raise fail(
                ExitCode.USAGE,
                f"--model {model!r}: use parameters such as 7B or 350M, or a size such as 84GB",
            )
        address, measured = parse_vault(named), Measurements()
        findings: list[Finding] = []

        def note(checks: Iterable[Finding]) -> None:
            for finding in checks:
                findings.append(finding)
                if not as_json:
                    _print(finding)

        note(check_libraries())
        note(check_settings(named))
        note(check_store(address, PATIENCE, measured))
        known = named_size or measured.checkpoint
        size = known or checkpoint_size(GUESSED_MODEL) or 0
        note(check_disk(output_dir.absolute(), size, measured, guessed=known is None))
        note(check_apart(address, output_dir.absolute()))
        predicted = predict(size, interval, measured)
        if predicted is not None:
            asked = os.environ.get("VAULTLAYER_ASYNC_SAVE", "").strip().lower() == "auto"
            whose = "" if named_size else " (as the newest here)" if known else _ASSUMED
            note(
                [
                    judge(predicted, interval, whose),
                    judge_copy(predicted, interval, free_memory(), asked=asked),
                ]
            )
        bad = [finding for finding in findings if finding.state == "bad"]
        if as_json:
            found = {
                "vault": address.uri,
                "ok": not bad,
                "findings": [_described(finding) for finding in findings],
                "measured": asdict(measured),
                "predicted": None if predicted is None else asdict(predicted),
            }
            typer.echo(json.dumps(found, indent=2))
        if bad:
            raise typer.Exit(int(bad[0].code))


def checkpoint_size(text: str) -> int | None:
    """Return the bytes of a checkpoint: ``84GB`` as it says, ``7B`` and ``350M`` as parameters; None: neither.

    A number with B alone means thousands of millions of parameters, as everywhere for models.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    number, unit, parameters = float(match[1]), match[2], match[3]
    if parameters or not unit:
        factor = {"M": 1e6, "B": 1e9, "T": 1e12}[(parameters or "B").upper()]
        return int(number * factor * BYTES_PER_PARAMETER)
    return int(number * _UNITS[unit.upper()])


def _described(finding: Finding) -> dict[str, Any]:
    return {"name": finding.name, "state": finding.state, "text": finding.text, "fix": finding.fix}


def _print(finding: Finding) -> None:
    mark = {"ok": "ok", "warning": "WARNING", "bad": "BAD"}[finding.state]
    items = [(mark, f"{finding.name}: {finding.text}"), ("", f"fix: {finding.fix}" if finding.fix else "")]
    print_items([item for item in items if item[1]], indent=8, styles=_COLOURS)
