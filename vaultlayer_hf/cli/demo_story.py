"""The three acts of `vl demo` and its verdict."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from vaultlayer_hf.cli.demo_run import Run, train, training_command
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.vault.reader.open import open_vault

STEPS = 120
SAVE_STEPS = 20
KILL_STEP = 60
"""The first checkpoint in whose upload the run is killed."""

_ENVIRONMENT = {"VAULTLAYER_BANDWIDTH": "3MB"}
"""Slow enough that an upload takes a second or two: a kill in the middle of it needs no luck."""

_LOOK = 0.03
"""Seconds between two looks into the vault."""


class DemoStory:
    """Tells, and checks, what happens to one run; ``folder`` gets outputs and logs."""

    def __init__(self, folder: Path, vault: str) -> None:
        self._folder = folder
        self._vault = vault
        self._uri = parse_vault(vault).uri
        self._output = folder / "output"
        self._console = Console(highlight=False)
        self._runs: list[Run] = []
        self._torn: int | None = None  # step of the checkpoint whose upload was interrupted
        self._committed: list[int] = []  # steps that were committed when the run was killed
        self._looked = 0.0

    def reference(self) -> None:
        """Act 1: nothing happens."""
        self._console.print("A small Llama learns the sources of Python's standard library, byte by byte.")
        self._console.print(f"VAULT is {self._uri}", soft_wrap=True)
        self._head("1. A run that nothing disturbs, by the stock Trainer: the reference")
        output = self._folder / "reference"
        run = self._train("reference", training_command(output, None), output)
        self._say(f"{run.step} steps, final loss {run.loss:.4f}")

    def killed_in_a_save(self) -> None:
        """Act 2: SIGKILL while a checkpoint is being uploaded."""
        self._head("2. The same run with a vault, killed (SIGKILL) in the middle of a save")
        run = self._train("killed", self._command(), self._output, kill=True)
        with open_vault(self._vault) as vault:
            self._committed = [commit.step for commit in vault.checkpoints()]
        if run.killed:
            self._say(
                f"killed at step {run.step}, while checkpoint-{self._torn} was being uploaded; "
                f"committed by then: {', '.join(map(str, self._committed)) or 'none'}"
            )

    def started_again(self) -> None:
        """Act 3: the same command, on a machine that has nothing."""
        self._head("3. output_dir is emptied, and the same command is started again")
        shutil.rmtree(self._output)
        run = self._train("resumed", self._command(), self._output)
        self._say(f"resumed from step {run.start}; {run.step} steps, final loss {run.loss:.4f}")

    def verdict(self) -> bool:
        """Print the table and each promise; return whether all were kept."""
        reference, killed, again = self._runs
        with open_vault(self._vault) as vault:
            reports = [vault.verify(commit) for commit in vault.checkpoints()]
        promises = {
            "SIGKILL ended the second run before its last step": killed.killed and killed.step < STEPS,
            "the torn checkpoint never became visible": self._torn is not None
            and self._torn not in self._committed,
            "it resumed from the newest committed checkpoint": bool(self._committed)
            and again.start == self._committed[-1],
            "the final weights are bit-identical": again.weights == reference.weights != "",
            "the loss history is identical": again.losses == reference.losses != [],
            "every checkpoint in the vault verifies": bool(reports) and all(report.ok for report in reports),
        }
        self._console.print()
        self._console.print(self._table())
        self._console.print()
        for promise, kept in promises.items():
            self._console.print(f"  {'[green]yes[/]' if kept else '[bold red]NO[/] '}  {promise}")
        return all(promises.values())

    def _command(self) -> list[str]:
        return training_command(self._output, self._vault)

    def _train(self, name: str, command: list[str], output: Path, *, kill: bool = False) -> Run:
        log = self._folder / f"{len(self._runs) + 1}-{name}.log"
        with self._bar() as bar:
            task = bar.add_task("", total=STEPS)
            run = train(
                name,
                command,
                output,
                log,
                environment=_ENVIRONMENT,
                on_step=lambda step: bar.update(task, completed=step),
                kill_when=self._in_a_save if kill else None,
            )
        self._runs.append(run)
        for event in run.events:
            text = event.replace(self._uri, "VAULT")
            self._console.print(f"     {text}", style="dim", markup=False, soft_wrap=True)
        return run

    def _in_a_save(self) -> bool:
        """Tell whether a late enough checkpoint is partly in the vault, not committed, and another one is."""
        if time.monotonic() - self._looked < _LOOK:
            return False
        self._looked = time.monotonic()
        store = open_store(self._vault)
        names = {item.key.split("/")[2] for item in store.list("data/") if item.key.count("/") > 2}
        steps = {int(name.split("-")[1].split(".")[0]) for name in names if name.startswith("checkpoint-")}
        if not steps or max(steps) < KILL_STEP:
            return False
        with open_vault(self._vault) as vault:
            committed = {commit.step for commit in vault.checkpoints()}
        self._torn = max(steps)
        return bool(committed) and self._torn not in committed

    def _table(self) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("run", "steps", "killed at", "resumed from", "final loss", "weights, sha256"):
            table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=True)
        for run in self._runs:
            ended = run.returncode == 0
            table.add_row(
                run.name,
                f"{(run.start or 0) + 1}..{run.step}",
                f"{run.step}" if run.killed else "",
                f"{run.start}" if run.start else "",
                f"{run.loss:.6f}" if ended else "",
                f"{run.weights[:14]}…" if ended else "",
            )
        return table

    @contextmanager
    def _bar(self) -> Iterator[Progress]:
        columns = (TextColumn("    "), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as bar:
            yield bar

    def _head(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/]")

    def _say(self, text: str) -> None:
        self._console.print(f"   {text}", soft_wrap=True)
