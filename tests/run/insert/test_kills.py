"""Scripts that `vl init` has edited are killed and resumed, and end as the scripts that nobody has edited."""

from __future__ import annotations

import pytest
import torch

from tests.forks import ForkServer
from tests.run.insert.kit import EDITED, VARIANTS
from tests.run.insert.story import Story, same, steps_of

QUICK = (
    "step_loop",
    "functions",
    "accumulation",
    "accelerate_loop",
    "trainer",
    "data_iterator",
    "moving_average",
    "moves_ahead",
    "left_out_rounds",
    "asked_ahead",
)
"""Edited and killed in each run of the tests; an even share of the others are slow tests, the command takes all."""
SHARE = [*EDITED[::2], *sorted(path.stem for path in VARIANTS.glob("*.py"))]


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SHARE if name not in QUICK)],
)
def test_edited_script_survives_kills(name, forks: ForkServer, tmp_path) -> None:
    """Unedited and unbroken, or edited, killed twice and resumed on an emptied disk: the same weights, bit by bit."""
    held, total = Story(name, forks, tmp_path).play()
    assert all(total // 3 <= newest < total for newest in held)


@pytest.mark.parametrize(
    ("name", "epoch"), [("epochs", 5), pytest.param("accelerate_loop", 8, marks=pytest.mark.slow)]
)
def test_saved_at_the_end_of_an_epoch(name, epoch, forks: ForkServer, tmp_path) -> None:
    """A checkpoint that falls due at an epoch's last batch resumes with the next epoch, in its own order."""
    held, _ = Story(name, forks, tmp_path, every=f"{epoch} steps").play()
    assert not any(newest % epoch for newest in held)


@pytest.mark.parametrize("name", ["step_loop", "epochs", "passes_by_while"])
def test_started_again_after_its_end_it_trains_nothing(name, forks: ForkServer, tmp_path) -> None:
    """An edited script whose run is finished ends at once, with the weights that it had."""
    story = Story(name, forks, tmp_path)
    assert story.run(story.edited) == 0
    first = torch.load(story.edited.parent / "model.pt")
    assert story.run(story.edited) == 0
    assert steps_of(story.edited.parent) == 0
    assert same(torch.load(story.edited.parent / "model.pt"), first)
