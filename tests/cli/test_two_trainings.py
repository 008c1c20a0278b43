"""`vl status` and `vl report` of a script that trains twice: each training is told by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vaultlayer_hf.cli.charts import loss_lines
from vaultlayer_hf.cli.gather import find_target, gather

from . import schema
from .conftest import vl
from .staged import REACHED, STEPS, TwoStages


def figures(target: str) -> dict[str, Any]:
    """Return what ``vl status --json`` says of a run or vault, in its promised form."""
    found = vl("status", target, "--json").json()
    assert schema.misfits(found, schema.STATUS) == []
    return found


@pytest.mark.parametrize("apart", [False, True])
def test_the_newest_training_is_told(tmp_path: Path, apart: bool) -> None:
    """While the second training is at step 27, its vault, step, speed and exposure are shown; the first is named."""
    stages = TwoStages(tmp_path, apart=apart)
    found = figures(str(stages.run))
    assert (found["vault"], found["step"], found["last_commit_step"]) == (stages.second, REACHED, 20)
    assert (found["exposure_steps"], found["lost_steps"], found["commits"]) == (REACHED - 20, 0, 1)
    assert found["steps_per_second"] == pytest.approx(2, rel=0.2)
    assert found["seconds_left"] == pytest.approx((STEPS - REACHED) / 2, rel=0.2)
    assert [(item["began_at"], item["step"]) for item in found["attempts"]] == [(0, REACHED)]
    assert found["trainings"] == [
        {"vault": stages.first, "step": STEPS, "finished": True},
        {"vault": stages.second, "step": REACHED, "finished": False},
    ]
    told = " ".join(vl("status", str(stages.run)).out.split())
    assert (
        f"before it this run trained {stages.first} to step 100 (finished): vl status {stages.first}" in told
    )


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("passes", [False, True])
def test_what_was_lost_is_of_one_training(tmp_path: Path, apart: bool, passes: bool) -> None:
    """Killed at its step 27, the second one lost 7 steps; a first one that was over before is passed by."""
    stages = TwoStages(tmp_path, apart=apart)
    stages.go_on(passes=passes)
    found = figures(str(stages.run))
    assert (found["vault"], found["state"], found["step"]) == (stages.second, "finished", STEPS)
    assert found["lost_steps"] == REACHED - 20
    rows = [(item["began_at"], item["step"], item["lost"], item["cause"]) for item in found["attempts"]]
    assert rows == [(0, REACHED, 7, "killed"), (20, STEPS, 0, "finished")]
    # By hand: 13.5 s and 40 s of steps, 3.5 s of them trained twice, out of what the second training took.
    assert found["goodput"] == pytest.approx((13.5 - 3.5 + 40) / found["seconds"], abs=0.02)
    assert found["seconds"] < 90


@pytest.mark.parametrize("apart", [False, True])
def test_a_vault_that_was_named_is_told_out_of_the_same_journal(tmp_path: Path, apart: bool) -> None:
    """The first training's vault is told with its own steps, attempts and end, and which one followed."""
    stages = TwoStages(tmp_path, apart=apart)
    stages.go_on()
    found = figures(stages.first)
    assert (found["vault"], found["state"], found["step"]) == (stages.first, "finished", STEPS)
    assert (found["watched"], found["commits"], found["lost_steps"]) == (True, 5, 0)
    assert [(item["began_at"], item["step"]) for item in found["attempts"]] == [(0, STEPS)]
    assert found["reason"] == f"the run went on with {stages.second}"
    told = " ".join(vl("status", stages.first).out.split())
    assert f"after it this run trained {stages.second} to step 100 (finished)" in told
    assert figures(stages.second)["attempts"] == figures(str(stages.run))["attempts"]


@pytest.mark.parametrize("apart", [False, True])
def test_the_pictures_are_of_one_training(tmp_path: Path, apart: bool) -> None:
    """Steps never fall but where they were lost, no loss of one training is trained again by another."""
    stages = TwoStages(tmp_path, apart=apart)
    for target in (str(stages.run), stages.first):
        story = gather(find_target(target))
        for attempt in story.attempts:
            assert list(attempt.steps) == sorted(attempt.steps, key=lambda point: point[1])
        counted, again = loss_lines(story)
        assert again == []
        assert [step for step, _ in counted] == [float(step) for step in range(10, (story.step or 0) + 1, 10)]
        assert [int(step) for _, step in story.commits] == list(range(20, (story.step or 0) + 1, 20))


def test_between_two_trainings_there_is_nothing_to_lose(tmp_path: Path) -> None:
    """Behind the end of the first one, while the script loads the second one's model, a death would cost no step."""
    stages = TwoStages(tmp_path, second=False)
    found = figures(str(stages.run))
    assert (found["vault"], found["state"], found["step"]) == (stages.first, "running", STEPS)
    assert (found["exposure_seconds"], found["exposure_steps"]) == (0, 0)
    assert (found["steps_per_second"], found["seconds_left"]) == (None, None)
