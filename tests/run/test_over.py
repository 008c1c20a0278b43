"""What counts as a training's end where `vl run` is told to end, and the script ends well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vaultlayer_hf.run.decide.cause import Cause, classify
from vaultlayer_hf.run.facts import gather
from vaultlayer_hf.run.journal import append

BEGUN: dict[str, Any] = {"kind": "train", "step": 0}
ENDED, STOPPED = {"kind": "trained", "over": True}, {"kind": "trained", "over": False}
FINISH = {"kind": "vault", "event": "finish"}


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ([BEGUN], Cause.TOLD),
        ([BEGUN, ENDED], Cause.FINISHED),
        ([BEGUN, STOPPED], Cause.TOLD),  # by a callback of the script's own
        ([BEGUN, {"kind": "trained"}], Cause.FINISHED),  # of a loop, which notes its end alone
        ([BEGUN, FINISH], Cause.FINISHED),
        ([BEGUN, ENDED, BEGUN], Cause.TOLD),  # a second training
        ([BEGUN, FINISH, STOPPED, BEGUN, STOPPED], Cause.TOLD),
        ([BEGUN, ENDED, BEGUN, FINISH, STOPPED], Cause.FINISHED),
    ],
)
def test_a_stop_in_the_middle_is_no_end(lines: list[dict[str, Any]], cause: Cause, tmp_path: Path) -> None:
    """The newest training's own note says whether it is at its end, and not that its train() has returned."""
    for time, line in enumerate(lines):
        append(tmp_path / "rank-0.jsonl", {"time": float(time), **line})
    assert classify(gather(tmp_path, 0, "", vault=None, told="SIGTERM")) is cause
