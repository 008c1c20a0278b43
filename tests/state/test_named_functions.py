"""Functions that are found again in a script that has been edited since: by their code where several have one name."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vaultlayer_hf.state.named_functions import find_function, name_function

NAME = "a_script_of_this_test"
BEGUN = "rates = [lambda step: 0.9**step, lambda step: 0.5**step]\n"


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Any]:
    """Imports a script's text as one module, each time anew, as each start does."""

    def run(text: str) -> Any:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(NAME, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield run
    sys.modules.pop(NAME, None)


def test_another_lambda_has_come_in_ahead_of_it(script: Any) -> None:
    """It is found by what it does, and not by its number, which another one has now."""
    kept = name_function(script(BEGUN).rates[1])
    assert kept is not None
    script("key = lambda step: 0.8**step\n" + BEGUN)
    assert find_function(kept)(2) == 0.25


def test_one_that_somebody_has_changed(script: Any) -> None:
    """Where several have its name none is taken for it; one that is alone under its name then and now is that one."""
    kept = name_function(script(BEGUN).rates[1])
    assert kept is not None
    script("rates = [lambda step: 0.9**step, lambda step: 0.4**step]\n")
    with pytest.raises(LookupError, match="give it a name by def"):
        find_function(kept)
    kept = name_function(script("rate = lambda step: 0.9**step\n").rate)
    assert kept is not None
    script("rate = lambda step: 0.5**step\n")
    assert find_function(kept)(2) == 0.25


@pytest.mark.parametrize("of", ["earlier versions", "another Python"])
def test_without_a_digest_the_number_counts(script: Any, of: str) -> None:
    """What was kept of a code that can't be compared is found as it always was."""
    kept = name_function(script(BEGUN).rates[1])
    assert kept is not None
    if of == "another Python":
        kept["code"][0] = "cpython-39"
    else:
        del kept["code"], kept["among"]
    script("rates = [lambda step: 0.9**step, lambda step: 0.4**step]\n")
    assert find_function(kept)(1) == 0.4
