"""Real deaths under `vl run`: what was decided about each, and the weights that the run ended with.

All kinds on one rank and on two: ``python -m tests.run``. Here is a slice of them.
"""

from __future__ import annotations

import psutil
import pytest

from tests.run.deaths import CLOSE, KINDS, check, play, why_impossible
from tests.run.programs import Ran, plain, torchrun, vl_run

DEFAULT = [("SIGKILL", 1)]
SLOW = [
    ("SIGKILL", 2),
    ("SIGKILL of the whole tree", 2),
    ("exception before the first step", 1),
    ("exception in a step", 1),
    ("torch.OutOfMemoryError", 1),
    ("OOM killer of a cgroup", 1),
    ("loss is nan", 2),
    ("a rank stuck", 2),
    ("disk full", 1),
    ("SIGTERM", 1),
    ("vault out of reach", 1),
]


@pytest.fixture(scope="session")
def references(tmp_path_factory):
    """What the undisturbed script ends with, by number of ranks and dropout."""
    made: dict[tuple[int, str], Ran] = {}

    def reference(ranks: int, dropout: str) -> Ran:
        if (ranks, dropout) not in made:
            command = (*torchrun(ranks), "train.py") if ranks > 1 else ()
            made[ranks, dropout] = plain(tmp_path_factory.mktemp("reference"), *command, DROPOUT=dropout)
        return made[ranks, dropout]

    return reference


@pytest.mark.slow
def test_nothing_that_moves_files_outlives_a_killed_training(tmp_path) -> None:
    """A training whose large files are being moved is killed, goes on to the same end, and leaves no process."""
    more = {
        "BEFORE": "model.ballast = torch.nn.Parameter(torch.ones(6 * 2**20))",
        "FATE": "9 moves = any('mover.worker' in ' '.join(child.cmdline()) for child in __import__('psutil')"
        ".Process().children()); print('MOVES', moves, flush=True); os.kill(os.getpid(), 9)",
        "FATE_ONCE": str(tmp_path / "once"),
        "PACE": "0.1",
        "VAULTLAYER_VAULT": str(tmp_path / "vault"),
    }
    ran = vl_run(tmp_path, **more)
    assert ran.code == 0
    assert "MOVES True" in ran.out
    assert ran.causes == ["killed", "finished"]
    assert not [one for one in psutil.process_iter() if str(tmp_path) in _command_of(one)]
    assert ran.weights == plain(tmp_path / "plain", **{**more, "FATE": "0 "}).weights


def _command_of(process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize(
    ("name", "ranks"),
    [*DEFAULT, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
    ids=lambda value: str(value).replace(" ", "-"),
)
def test_death_is_answered_as_its_cause_asks(name, ranks, references, tmp_path) -> None:
    """An unedited script that dies so is started again, or not, as promised, and ends as if nothing had happened."""
    kind = KINDS[name]
    if why_impossible(kind):
        pytest.skip(why_impossible(kind))
    ran = play(kind, ranks, tmp_path)
    print(ran.err[-6000:])
    reference = references(ranks, "0" if kind.end == CLOSE else "0.2") if kind.end != "none" else None
    check(kind, ran, reference)
    if name == "SIGKILL":
        assert ran.notes(2, "train")[0]["step"] >= 2, "it started anew instead of resuming"
        assert "doesn't survive the loss of this machine" in ran.err
        assert all(ran.notes(1, "hooked", rank) for rank in range(ranks)), "the hook reaches every rank"
    if name == "exception before the first step":
        assert "ValueError: no such column" in ran.err.partition("[vl] stop")[0]
    if kind.causes[0] in ("memory", "host-memory"):
        last = ran.notes(len(ran.causes), "train")[0]
        assert last["micro_batch"] * last["accumulation"] == 4, "the global batch has changed"
        assert last["micro_batch"] < 4
    if name == "a rank stuck":
        stacks = (tmp_path / ".vl" / "attempt-0001" / f"rank-{ranks - 1}.stacks").read_text()
        assert "on_step_begin" in stacks, "the stack of the rank that hangs shows where"
    if name == "SIGTERM":
        assert ran.lines("end")[0]["code"] == 75
