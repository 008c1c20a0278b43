"""Plays scenarios, stock and ours, and compares each with the run that nothing disturbed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.exact.material import Scenario
from tests.forks import ForkServer
from tests.servers import free_ports

MODULES = ("tests.exact.train_part", "datasets")


@dataclass(frozen=True)
class Row:
    """What came out of a scenario.

    Attributes:
        stock, ours: whether the run that was broken off at each break ended as the undisturbed one, bit by bit, on
            every rank.
        unchanged: whether an undisturbed run of ours ends as the stock one.
        said: what ours said before it went on, of numbers that may differ; and how a pass was reopened.
        trouble: why a run failed, by its kind.
    """

    scenario: Scenario
    stock: bool
    ours: bool
    unchanged: bool
    said: tuple[str, ...]
    trouble: dict[str, str]


def play_row(
    forks: ForkServer,
    one: Scenario,
    folder: Path,
    world: int,
    *,
    kinds: Sequence[bool] = (False, True),
    bare: bool = False,
    **more: Any,
) -> Row:
    """Play a scenario on ``world`` ranks: whole, and broken off at each of its breaks; ``kinds``: stock, ours.

    ``bare``: checkpoints without the place in the data. ``more`` changes arguments of the runs that go on.
    """
    found: dict[tuple[bool, int | None], list[dict[str, Any]]] = {}
    trouble: dict[str, str] = {}
    last = len(one.breaks)
    for ours in kinds:
        for attempt in (None, *range(last + 1)):
            where = folder / ("ours" if ours else "stock")
            part = "whole" if attempt is None else f"attempt {attempt + 1}"
            # Ours loses its disk each time.
            output = where / ("output" if not ours and attempt is not None else part)
            changed = more if attempt else {}
            words = {"name": one.name, "ours": ours, "attempt": attempt, "output": str(output)}
            words |= {
                "changed": changed,
                "vault": str(where / ("vault-of-whole" if attempt is None else "vault")),
            }
            words["bare"] = bare and attempt == 0
            results, error = _run(forks, words, where / f"{part} files", world)
            found[ours, attempt] = results
            if error:
                trouble[f"{'ours' if ours else 'stock'}, {part}"] = error
    whole = _digests(found.get((False, None), found.get((True, None), [])))
    said = [
        message
        for attempt in range(1, last + 1)
        for result in found.get((True, attempt), [])
        for kind, message in result["said"]
        if kind == "inexact" or "fetched again" in message
    ]
    return Row(
        one,
        bool(whole) and _digests(found.get((False, last), [])) == whole,
        bool(whole) and _digests(found.get((True, last), [])) == whole,
        bool(whole) and _digests(found.get((True, None), [])) == whole,
        tuple(dict.fromkeys(said)),
        trouble,
    )


def _digests(results: list[dict[str, Any]]) -> list[str]:
    return [result["digest"] for result in results]


def _run(
    forks: ForkServer, words: dict[str, Any], folder: Path, world: int
) -> tuple[list[dict[str, Any]], str]:
    port = free_ports(1)[0] if world > 1 else 0
    runs = []
    for rank in range(world):
        env = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        spec = {**words, "result": str(folder / f"result-{rank}")}
        runs.append(
            forks.start(
                "tests.exact.train_part:train_part", spec, folder / str(rank), env=env if world > 1 else None
            )
        )
    try:
        outcomes = [run.wait(60) for run in runs]
    except AssertionError as error:  # it hangs: that is what came of it
        for run in runs:
            run.kill()
        return [], str(error).splitlines()[0]
    failed = [outcome for outcome in outcomes if outcome.code]
    if failed:
        return [], (failed[0].errors.strip().splitlines() or ["no word"])[-1]
    return [json.loads((folder / f"result-{rank}").read_text()) for rank in range(world)], ""


def play_all(scenarios: Sequence[Scenario], folder: Path, world: int, at_once: int = 2) -> list[Row]:
    """Play scenarios, ``at_once`` at a time."""
    with ForkServer(*MODULES) as forks, ThreadPoolExecutor(at_once) as pool:
        waiting = [
            pool.submit(play_row, forks, one, folder / str(number), world)
            for number, one in enumerate(scenarios)
        ]
        return [row.result() for row in waiting]


def text_of(rows: Sequence[Row]) -> str:
    """The table, for a person."""
    width = max(len(row.scenario.name) for row in rows)
    lines = [f"{'scenario'.ljust(width)}  stock      ours       undisturbed run"]
    for row in rows:
        words = ["bit-exact" if exact else "differs" for exact in (row.stock, row.ours)]
        same = "the same" if row.unchanged else "CHANGED"
        lines.append(f"{row.scenario.name.ljust(width)}  {words[0]:9}  {words[1]:9}  {same}")
        lines += [f"    {words}" for words in row.said]
        lines += [f"    {kind} failed: {words}" for kind, words in row.trouble.items()]
    possible = [row for row in rows if row.scenario.possible]
    stock, ours = sum(row.stock for row in possible), sum(row.ours for row in possible)
    lines.append(f"bit-exact of {len(possible)} where it is possible: stock {stock}, ours {ours}")
    return "\n".join(lines)
