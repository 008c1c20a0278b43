"""What tells runs apart that `vl report` shows side by side: their losses and metrics, and the settings that differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vaultlayer_hf.cli.figures import is_figure, logged, parsed
from vaultlayer_hf.cli.ls import number_text
from vaultlayer_hf.cli.named_vault import open_if_there
from vaultlayer_hf.errors import VaultLayerError

if TYPE_CHECKING:
    from vaultlayer_hf.run.story import AttemptStory, RunStory
    from vaultlayer_hf.vault.reader.vault import Vault

_OF_STATE = ("max_steps", "num_train_epochs", "train_batch_size")
"""Names in a trainer_state.json of what the Trainer was asked for."""
_OF_LOOP = 20
"""Newest checkpoints of a loop that are looked through: each knows its own loss alone."""


@dataclass(frozen=True)
class Outcome:
    """What a run has come to, and by which settings.

    Attributes:
        figures: values by step, by name: the loss, and what evaluations have measured.
        settings: what the newest checkpoint was asked for.
    """

    figures: dict[str, dict[int, float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> dict[str, dict[str, float | int | None]]:
        """The figures as a program wants them: the last of each, and the lowest, with their steps."""
        return {name: _ends(points) for name, points in self.figures.items()}


def outcome_of(story: RunStory) -> Outcome:
    """Read what the newest checkpoint of a run's vault, and the journal of its steps, know of losses and settings.

    A vault that can't be read is said elsewhere.
    """
    found = Outcome()
    if losses := losses_of(story.attempts):
        found.figures["loss"] = losses
    try:
        vault = open_if_there(story.vault) if story.vault is not None else None
        if vault is not None:
            with vault:
                _read(vault, found, story.attempts[-1] if story.attempts else None)
    except VaultLayerError:
        pass
    return found


def losses_of(attempts: Sequence[AttemptStory]) -> dict[int, float]:
    """Return the losses by step of what counts: a later attempt leaves behind what lies beyond its begin. Pure."""
    found: dict[int, float] = {}
    for attempt in attempts:
        if attempt.began_at is not None:
            found = {step: loss for step, loss in found.items() if step <= attempt.began_at}
        found.update((int(step), float(loss)) for step, loss in attempt.losses)
    return found


def _read(vault: Vault, found: Outcome, attempt: AttemptStory | None) -> None:
    """Read what the newest checkpoint knows. ``attempt``: the newest one."""
    newest = vault.state.newest if vault.state is not None else None
    if newest is None:
        return
    limit = math.inf
    # The log counts what @STEP has left behind until the first commit beyond that step.
    if attempt is not None and attempt.began_at is not None:
        limit = attempt.began_at if newest.step > max(attempt.began_at, attempt.step or 0) else limit
    state = parsed(vault.read(newest, "trainer_state.json"))
    items = logged(state)
    if not state:
        live = [commit for commit in vault.checkpoints() if not commit.left_behind][-_OF_LOOP:]
        items = [parsed(vault.read(commit, "vaultlayer.json")) for commit in live]
    for item in items:
        for name, value in item.items():
            step = item.get("step")
            if is_figure(name, value) and isinstance(step, int) and step <= limit:
                found.figures.setdefault(name, {})[step] = value
    asked = parsed(vault.read(newest, "vaultlayer_asked.json"))
    arguments = asked.get("arguments")
    found.settings.update({name: state[name] for name in _OF_STATE if name in state})
    found.settings.update(arguments if isinstance(arguments, dict) else {})
    if asked.get("optimizer"):
        found.settings["optimizer"] = asked["optimizer"]


def figure_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return a row for each loss or metric that a run knows: its name, and a cell for each run. Pure."""
    names = list(dict.fromkeys(name for one in outcomes for name in one.figures))
    return [(name, *(_figure_text(name, one.figures.get(name, {})) for one in outcomes)) for name in names]


def setting_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return a row for each setting that isn't the same in all runs that know their settings. Pure."""
    known = [one.settings for one in outcomes if one.settings]
    names = dict.fromkeys(name for settings in known for name in settings)
    differ = [name for name in names if len({str(settings.get(name)) for settings in known}) > 1]
    return [(name, *(_value(one.settings, name) for one in outcomes)) for name in differ]


def _ends(points: dict[int, float]) -> dict[str, float | int | None]:
    last, lowest = max(points), _lowest(points)
    return {
        "step": last,
        "value": points[last] if math.isfinite(points[last]) else None,
        "lowest_step": lowest,
        "lowest_value": points[lowest] if lowest is not None else None,
    }


def _lowest(points: dict[int, float]) -> int | None:
    """Return the step of the lowest value; None where none is a number."""
    return min((step for step in points if math.isfinite(points[step])), key=points.__getitem__, default=None)


def _figure_text(name: str, points: dict[int, float]) -> str:
    if not points:
        return ""
    last, lowest = max(points), _lowest(points)
    text = f"{number_text(points[last])} (step {last})"
    # Of other metrics the highest may be the best.
    if lowest is None or lowest == last or not name.endswith("loss"):
        return text
    return f"{text}; lowest {number_text(points[lowest])} (step {lowest})"


def _value(settings: dict[str, Any], name: str) -> str:
    if not settings:
        return ""
    value = settings.get(name)
    return "not set" if value is None else str(value)
