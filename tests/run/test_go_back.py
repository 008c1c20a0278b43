"""`vl run --vault VAULT@STEP`: the run goes back to that step, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.programs import SCRIPT, Ran, vl_run

NAMED = SCRIPT.replace("import LlamaForCausalLM, Trainer,", "import LlamaForCausalLM,").replace(
    "from tests.kit", "from vaultlayer_hf import Trainer\nfrom tests.kit"
)
NAMED = NAMED.replace("train_dataset=rows,", 'train_dataset=rows, resume="vault",')


def begun(ran: Ran, attempt: int) -> int:
    """The step that an attempt went on from."""
    return int(ran.notes(attempt, "train")[-1]["step"])


@pytest.mark.parametrize(
    "script", [SCRIPT, pytest.param(NAMED, marks=pytest.mark.slow)], ids=["none", "named"]
)
def test_a_run_goes_back_once(tmp_path: Path, script: str) -> None:
    """One that is over trains on from the step, whichever names the vault; killed behind a save, from that save."""
    kept = {"PACE": "0.1", "VAULTLAYER_KEEP_LAST": "20"}
    first = vl_run(tmp_path, options=("--vault", "vault"), script=script, **kept)
    assert first.code == 0
    fate = {**kept, "FATE": "10 os.kill(os.getpid(), 9)", "FATE_ONCE": str(tmp_path / "once")}
    again = vl_run(tmp_path, options=("--vault", "vault@8"), script=script, **fate)
    assert again.code == 0
    assert f"is file://{tmp_path}/vault; the run goes back to step 8, once" in again.err
    assert [begun(again, attempt) for attempt in (1, 2, 3)] == [0, 8, 10]
    assert again.weights == first.weights
    assert "done: 1 attempt, " in first.err
    assert "done: 2 attempts of this start, " in again.err, "the first start's is attempt 1"
