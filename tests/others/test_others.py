"""Programs that others wrote, or that are written as others write them, survive a kill under `vl run`.

All of them, and what a lost disk does: ``python -m tests.others``. Here is a slice of them.
"""

from __future__ import annotations

import pytest
import transformers

from tests.others import programs
from tests.others.compare import compare
from tests.others.programs import is_there

CASES = [
    pytest.param(programs.SFT, 1, False, id="sft-1"),
    pytest.param(programs.LM, 2, False, id="lm-2"),
    pytest.param(programs.CHECKPOINTING, 2, False, id="checkpointing-2"),
    pytest.param(programs.MLM, 1, False, id="mlm-1"),
    pytest.param(programs.GLUE, 1, True, id="glue-1-emptied"),
    pytest.param(programs.QA, 1, True, id="qa-1-emptied"),
    *(
        pytest.param(program, 1, True, id=program.needs)
        for program in (programs.SENTENCES, programs.SETFIT, programs.AXOLOTL, programs.LLAMA_FACTORY)
    ),
    *(pytest.param(program, 1, True, id=program.needs) for program in (programs.SWIFT, programs.UNSLOTH)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "ranks", "empty"), CASES)
def test_killed_program_ends_bit_identical(program, ranks, empty, tmp_path) -> None:
    """A rank is killed by SIGKILL, `vl run` starts all again, and the weights are those of an undisturbed run."""
    if not is_there(program):
        pytest.skip(f"needs {program.needs}: {program.install}, in an environment of its own")
    if ranks > 1 and int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("several CPU ranks need transformers 5")
    compared = compare(program, ranks, tmp_path, empty=empty)
    assert compared.code == 0, compared.output
    assert compared.same, compared.output
    assert compared.edited is program.insert
