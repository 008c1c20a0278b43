"""What has happened to a run, put together from its journal and notes."""

from __future__ import annotations

from typing import Any

import pytest

from vaultlayer_hf.cli.status import describe, facts
from vaultlayer_hf.run.assemble import assemble
from vaultlayer_hf.run.story import RunStory


def story_of(*trained: tuple[int, int] | None) -> RunStory:
    """A run whose attempts went on from a step and came to another one; None: it was killed before it trained."""
    journal: list[dict[str, Any]] = [{"kind": "begin", "run": "r", "attempt": 0, "time": 0.0}]
    notes: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for number, span in enumerate(trained, 1):
        moment = 100.0 * number
        journal.append({"kind": "start", "run": "r", "attempt": number, "time": moment})
        notes[number] = {0: []}
        if span is not None:
            notes[number][0] = [
                {"kind": "train", "time": moment + 10, "step": span[0], "max_steps": 1000},
                {"kind": "log", "time": moment + 50, "step": span[1], "loss": 1.0},
            ]
        journal.append(
            {"kind": "death", "run": "r", "attempt": number, "time": moment + 60, "cause": "killed"}
        )
    return assemble(journal, notes, {}, [], vault=None, alive=False, now=1e4)


@pytest.mark.parametrize(
    ("trained", "lost"),
    [
        (((0, 90), (80, 200)), [10, 0]),
        (((0, 90), None, (80, 200)), [10, 0, 0]),
        (((0, 90), None, None, (80, 200)), [10, 0, 0, 0]),
        (((0, 90), None), [None, 0]),
        (((0, 90), (80, 200), None), [10, None, 0]),
    ],
)
def test_what_was_lost_is_told_by_the_next_attempt_that_trains(
    trained: tuple[tuple[int, int] | None, ...], lost: list[int | None]
) -> None:
    """An attempt that is killed in its imports takes nothing of what the one before has lost; until then who knows."""
    story = story_of(*trained)
    assert [attempt.lost for attempt in story.attempts] == lost
    known = None not in lost
    assert (story.lost_steps, story.goodput is not None) == (
        sum(filter(None, lost)) if known else None,
        known,
    )
    shown = dict(facts(describe(story)))
    assert shown["lost work"].startswith(
        "10 steps were" if known else "not known: no attempt has come to train"
    )
