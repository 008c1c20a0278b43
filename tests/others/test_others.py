"""Programs that others wrote, or that are written as others write them, survive a kill under `vl run`.

All of them, on one rank and on two: ``python -m tests.others``. Here is a slice of them.
"""

from __future__ import annotations

import importlib.util

import pytest
import transformers

from tests.others.compare import CHECKPOINTING, LM, SFT, compare

CASES = [
    pytest.param(SFT, 1, id="sft-1"),
    pytest.param(LM, 2, id="lm-2"),
    pytest.param(CHECKPOINTING, 2, id="checkpointing-2"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "ranks"), CASES)
def test_killed_program_ends_bit_identical(program, ranks, tmp_path) -> None:
    """A rank is killed by SIGKILL, `vl run` starts all again, and the weights are those of an undisturbed run."""
    if program is SFT and importlib.util.find_spec("trl") is None:
        pytest.skip("needs trl, which wants a newer transformers: pip install trl")
    if ranks > 1 and int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("several CPU ranks need transformers 5")
    compared = compare(program, ranks, tmp_path)
    assert compared.code == 0, compared.output
    assert compared.same, compared.output
    assert compared.edited is program.insert
