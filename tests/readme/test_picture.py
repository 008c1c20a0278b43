"""The README's picture can be drawn, on a light page and on a dark one."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.readme.picture import DARK, LIGHT, TITLES
from vaultlayer_hf.run.story import AttemptStory, RunStory


def _story(began_at: int) -> RunStory:
    """A run that died at step 40, and went on from ``began_at`` to step 100."""
    first = AttemptStory(
        1, 0.0, 50.0, cause="killed", step=40, steps=((10.0, 0.0), (50.0, 40.0)), lost=40 - began_at
    )
    span = ((60.0, float(began_at)), (160.0 - began_at, 100.0))
    second = AttemptStory(2, 50.0, span[1][0], cause="finished", began_at=began_at, step=100, steps=span)
    commits = ((40.0, 30.0),) if began_at else ()
    return RunStory(None, "finished", "", (first, second), commits, (), 100, 200.0, 100)


def test_picture_is_drawn_on_light_and_dark() -> None:
    """Both pictures are whole SVGs that show both runs' deaths and lost work, in colours of their own."""
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'vaultlayer-hf[report]'")
    from vaultlayer_hf.cli.side_by_side import side_by_side

    drawn = [
        side_by_side([(title, _story(30 if kept else 0)) for kept, title in TITLES.items()], dark=dark)
        for dark in (False, True)
    ]
    for text in drawn:
        ElementTree.fromstring(text)
        for said in (*TITLES.values(), "lost work", "death", "commit", "killed"):
            assert f"<!-- {said} -->" in text
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("path", [LIGHT, DARK], ids=lambda path: path.name)
def test_picture_is_there(path) -> None:
    """The picture that the README shows is a whole SVG."""
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
