"""What the guide says of other libraries is what ``python -m tests.others`` tries."""

from __future__ import annotations

import re

import pytest

from tests.others.programs import PROGRAMS, SCRIPTS
from tests.readme.blocks import of_kind


def test_the_guides_commands_are_those_that_are_tried() -> None:
    """Each command line for another library that the guide shows is one of the programs', its script or file aside."""
    (block,) = of_kind("sh:stacks")
    shown = re.findall(r"^vl run --vault \S+ -- (\S+) (\S+)", block.text, re.MULTILINE)
    tried = {program.words[:2] for program in PROGRAMS if program.own}
    assert set(shown) == tried | {("python", "train.py")}


@pytest.mark.parametrize("file", ["axolotl.yaml", "llamafactory.yaml"])
def test_the_guides_settings_are_those_that_are_tried(file: str) -> None:
    """What the guide says to have in a configuration is in the one that is tried, under these names."""
    yaml = pytest.importorskip("yaml")
    (block,) = (block for block in of_kind("yaml:stacks") if f"# {file}" in block.text)
    assert yaml.safe_load(block.text).keys() <= yaml.safe_load((SCRIPTS / file).read_text()).keys()
