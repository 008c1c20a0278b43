"""What a library makes when it is first needed is made beforehand in a spare, and is right when it is needed."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.run.programs import vl_run
from tests.run.test_spare import said, warm
from vaultlayer_hf.run.inside.startup.vaultlayer_ahead import Tables

_NAME = "transformers.conversion_mapping"
_LIBRARY = """
_PATTERNS = {"a": 1}
_checkpoint_conversion_mapping_cache = None
calls = []

def _build_checkpoint_conversion_mapping():
    calls.append(1)
    return {name: [number] for name, number in _PATTERNS.items()}
"""


@pytest.fixture
def library() -> Iterator[Any]:
    """A module that stands where transformers' table is made."""
    kept, module = sys.modules.get(_NAME), ModuleType(_NAME)
    exec(_LIBRARY, vars(module))
    sys.modules[_NAME] = module
    yield module
    if kept is None:
        del sys.modules[_NAME]
    else:
        sys.modules[_NAME] = kept


def test_the_table_is_made_once(library: Any) -> None:
    """It isn't seen before it is asked for; then it is there; who asks again gets a new one, as ever."""
    tables = Tables()
    tables.make()
    tables.make()
    assert (library.calls, library._checkpoint_conversion_mapping_cache) == ([1], None)
    build = library._build_checkpoint_conversion_mapping
    first = build()
    assert (first, library.calls) == ({"a": [1]}, [1])
    assert build() is not first
    assert (library.calls, build.__name__) == ([1, 1], "_build_checkpoint_conversion_mapping")


def test_what_a_script_has_changed_by_then_counts(library: Any) -> None:
    """A table made of anything else than what is there now would rename weights wrongly, without a word."""
    Tables().make()
    library._PATTERNS["b"] = 2
    assert library._build_checkpoint_conversion_mapping() == {"a": [1], "b": [2]}


def test_a_library_of_another_version_is_left_alone(library: Any) -> None:
    """Without such a function, or with the table made at its import."""
    library._checkpoint_conversion_mapping_cache = {}
    build = library._build_checkpoint_conversion_mapping
    Tables().make()
    assert library._build_checkpoint_conversion_mapping is build
    del library._build_checkpoint_conversion_mapping
    library._checkpoint_conversion_mapping_cache = None
    Tables().make()


@pytest.mark.slow
def test_a_warm_restart_saves_with_a_table_that_was_made_beforehand(tmp_path) -> None:
    """The function that makes it runs in the first attempt and in the spare, not in the attempt that this becomes."""
    names = pytest.importorskip(_NAME)
    if not hasattr(names, "_build_checkpoint_conversion_mapping"):
        pytest.skip("this transformers has no such table")
    wait = (
        "import time; end = time.monotonic() + 100\n"
        "while 'is kept ready' not in open('.vl/journal.jsonl').read() and time.monotonic() < end: time.sleep(0.05)\n"
        "os.kill(os.getpid(), 9)"
    )
    before = textwrap.dedent(
        """
        from transformers import conversion_mapping
        build = conversion_mapping._build_checkpoint_conversion_mapping
        print('BUILT BY', build.__code__.co_filename.rpartition('/')[2])
        """
    )
    ran = vl_run(tmp_path, spare=True, FATE=f"7 {wait}", FATE_ONCE=str(tmp_path / "once"), BEFORE=before)
    assert (ran.code, ran.causes, warm(ran)) == (0, ["killed", "finished"], [False, True]), said(ran)
    found = [line.split()[2] for line in ran.out.splitlines() if line.startswith("BUILT BY")]
    assert found == ["conversion_mapping.py", "vaultlayer_ahead.py"]
