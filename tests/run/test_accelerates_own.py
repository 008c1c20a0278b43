"""accelerate's own test programs, run by a warm start: they look at what a process and its ranks see."""

from __future__ import annotations

import sys
import textwrap

import pytest

from tests.run.programs import torchrun, vl_run
from tests.run.test_spare import TRAINS, said, warm
from tests.run.test_warm_ranks import cold

PROGRAMS = ("test_script", "test_sync", "test_ops")

SCRIPT = TRAINS + textwrap.dedent(
    """
    import runpy
    import accelerate.test_utils, torch, transformers

    if attempt() == 1:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(200)
        train_a_step("kept ready for a quick restart")  # a launcher's comes behind the one that forks its ranks
    runpy.run_module(f"accelerate.test_utils.scripts.{sys.argv[1]}", run_name="__main__", alter_sys=True)
    open(f"passed-{os.environ.get('RANK', '')}", "w").close()
    """
)
"""Dies in its first attempt; what it is asked for runs in the second one."""


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("launcher", ["python", "torchrun"])
def test_accelerates_own_tests_pass_in_a_warm_start(launcher, program, tmp_path) -> None:
    """What accelerate checks of a process, its data loaders, random numbers and ranks holds in a warm start, too."""
    command = (sys.executable,) if launcher == "python" else torchrun(2)
    # Without this variable accelerate joins no ranks on a machine without an accelerator: each would be a run of its
    # own, in one folder.
    ran = vl_run(
        tmp_path, *command, "train.py", program, script=SCRIPT, spare=True, ACCELERATE_USE_CPU="true"
    )
    print(ran.out[-3000:])
    assert (ran.code, ran.causes) == (0, ["killed", "finished"])
    assert warm(ran) == [False, True]
    assert cold(ran) == [], said(ran)
    passed = {"passed-"} if launcher == "python" else {"passed-0", "passed-1"}
    assert {path.name for path in tmp_path.glob("passed-*")} == passed
