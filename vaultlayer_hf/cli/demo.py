"""`vl demo`: a training run is killed in the middle of a save, and goes on to the very same weights.

The story, each part of it checked:
1. a run that nothing disturbs, by the stock Trainer: the reference;
2. the same run with a vault, killed by SIGKILL while a checkpoint is being uploaded;
3. its output_dir is emptied, and the same command is started again: it resumes from the newest commit;
4. weights and loss history equal those of the reference, bit by bit, and the vault verifies.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from vaultlayer_hf.cli.common import DebugOption, ExitCode, fail, one_line_errors
from vaultlayer_hf.cli.named_vault import full_uri, open_if_there

VaultOption = Annotated[
    str | None,
    typer.Option(
        "--vault", metavar="URI", help="An empty vault to use instead of a folder; it is left there."
    ),
]
KeepOption = Annotated[bool, typer.Option("--keep", help="Keep the folder with all that was written.")]


def demo(vault: VaultOption = None, keep: KeepOption = False, debug: DebugOption = False) -> None:
    """Kill a training run in the middle of a save, and see it go on to the same weights.

    Trains a small Llama on the sources of Python's standard library: about a minute on two cores, offline.
    Exits with 1 if anything is not as promised.

    Example: vl demo --vault s3://bucket/demo
    """
    with one_line_errors(debug):
        if vault is not None and open_if_there(vault) is not None:
            raise fail(
                ExitCode.USAGE, f"{full_uri(vault)} holds a run already: the demo needs an empty vault"
            )
        folder = Path(tempfile.mkdtemp(prefix="vl-demo-"))
        try:
            kept = _tell(folder, vault)
        finally:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
        if keep:
            typer.echo(f"Everything is kept in {folder}")
        elif vault is not None:
            typer.echo(f"The vault is left at {vault}: vl ls {vault}")
        if not kept:
            raise fail(ExitCode.FAILED, "the demo did not end as promised")


def _tell(folder: Path, vault: str | None) -> bool:
    """Run the story and print it; return whether every promise was kept."""
    from vaultlayer_hf.cli.demo_run import TrainingFailedError
    from vaultlayer_hf.cli.demo_story import DemoStory

    began = time.monotonic()
    story = DemoStory(folder, vault or str(folder / "vault"))
    try:
        story.reference()
        story.killed_in_a_save()
        story.started_again()
    except TrainingFailedError as error:
        typer.echo(str(error), err=True)
        return False
    kept = story.verdict()
    typer.echo(f"{time.monotonic() - began:.0f} seconds.")
    return kept
