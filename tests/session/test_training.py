"""What a seam drives: a training's end in trouble, signals of one without a vault, ranks that fail alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit.any_files import AnyFiles
from tests.session.test_ranks import on_all, ranks_of
from tests.vault.vaults import PARAMETERS, Heard, TrainersFiles, a_session, start, write_checkpoint
from vaultlayer_hf import FencedError, Settings
from vaultlayer_hf.base.events import Events
from vaultlayer_hf.session import observers
from vaultlayer_hf.session.access import Access
from vaultlayer_hf.session.observers import TrainingObserver, observe
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.session.save import rounds
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.stop import draining
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation


def claim_elsewhere(vault: str) -> None:
    """Have another process take the vault."""
    other = Access(Settings(vault=vault), Events())
    other.claim(other.last())


def save(training: Training, step: int) -> None:
    """Write a checkpoint as a seam does, and hand it over."""
    folder = training.session.output_dir / f"checkpoint-{step}"
    training.before_save(folder)
    write_checkpoint(training.session.output_dir, step)
    training.save(Save(folder, step, AnyFiles(), PARAMETERS))


def on_two_ranks(
    vault: Path, outputs: tuple[Path, Path], function: Callable[[Training], Any]
) -> list[tuple[Any, Heard]]:
    """Train on two ranks at once, each on a disk of its own; return what each returned or raised, and its events."""

    def one_rank(one: Ranks) -> Any:
        events = Events()
        events.listen(heard[one.rank].events.append)
        settings = Settings(
            vault=str(vault), signals="none", notices="none", flush_timeout=20, part_timeout=20
        )
        training = Training(Session(settings, outputs[one.rank], ranks=one, events=events, progress=False))
        try:
            training.session.enter()
            training.session.start_uploads(None)
            training.begin(0)
            return function(training)
        finally:
            training.close()

    heard = (Heard(), Heard())
    with ranks_of(2, timeout=20.0) as ranks:
        return list(zip(on_all(ranks, one_rank), heard, strict=True))


@pytest.mark.parametrize("before", [False, True])
def test_a_training_without_its_vault_is_interrupted_as_any(tmp_path: Path, before: bool) -> None:
    """on_fenced="continue": the first Ctrl-C behind the fence interrupts, and one just ahead of it, too."""
    vault = str(tmp_path / "vault")
    session, heard = a_session(vault, tmp_path / "output", on_fenced="continue")
    training = Training(session)
    resume(session, TrainersFiles())
    training.begin(0)
    try:
        claim_elsewhere(vault)
        save(training, 1)
        assert session.uploader is not None
        assert session.uploader.wait(20)
        if before:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            training.at_step(1)
            assert "goes on without a vault" in heard.reasons("fenced")
        with pytest.raises(KeyboardInterrupt):
            training.at_step(2) if before else os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        training.close()


def test_an_exception_does_not_wait_for_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that fails ends soon, though flush_timeout is long: its last save is adopted by the next start."""
    monkeypatch.setattr(draining, "STALLED_SECONDS", 0.3)
    vault, output, away = str(tmp_path / "vault"), tmp_path / "output", threading.Event()

    def plan(operation: Operation) -> Fault | None:
        return Fault.refused() if away.is_set() else None

    store = FaultStore(open_store(vault), plan)
    session, _ = a_session(vault, output, store=store, flush_timeout=100_000)
    training = Training(session)
    resume(session, TrainersFiles())
    training.begin(0)
    away.set()
    save(training, 100)
    training.close()  # hangs where it waits for the store
    path, again = start(vault, output)
    assert path == output / "checkpoint-100"
    assert "adopted" in again.reasons("adopt")


def test_a_fence_at_the_end_is_raised_on_all_ranks(tmp_path: Path) -> None:
    """Rank 0 alone meets the claim of another process when it notes the end; both ranks raise FencedError."""

    def end(training: Training) -> None:
        if training.session.ranks.rank == 0:
            claim_elsewhere(str(tmp_path / "vault"))
        training.session.ranks.gather(None)
        training.finish(1, {})

    found = on_two_ranks(tmp_path / "vault", (tmp_path / "one", tmp_path / "two"), end)
    assert [type(result) for result, _ in found] == [FencedError, FencedError]


def test_ranks_meet_at_each_folder_that_is_cleared(tmp_path: Path) -> None:
    """Where a folder is cleared and nothing saved, the next clearing waits for all ranks all the same."""
    begun = threading.Event()

    def clear_twice(training: Training) -> bool:
        folder = training.session.output_dir / "checkpoint-1"
        training.before_save(folder)
        if training.session.ranks.rank == 0:
            time.sleep(0.5)
            begun.set()
        training.before_save(folder)
        return begun.is_set()

    found = on_two_ranks(tmp_path / "vault", (tmp_path / "one", tmp_path / "two"), clear_twice)
    assert [result for result, _ in found] == [True, True]


def test_an_odd_failure_of_another_rank_costs_one_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever rank 1 meets in its folder is told by rank 0 at once, and the save after it is committed."""
    take = rounds.take_snapshot

    def fails_on_rank_1(source: Path, *arguments: Any) -> Any:
        if source == tmp_path / "two" / "checkpoint-1":
            raise RecursionError("nobody has thought of this")
        return take(source, *arguments)

    monkeypatch.setattr(rounds, "take_snapshot", fails_on_rank_1)

    def train(training: Training) -> bool:
        rank = training.session.ranks.rank
        for step in (1, 2):
            folder = training.session.output_dir / f"checkpoint-{step}"
            training.before_save(folder)
            folder.mkdir(parents=True)
            (folder / f"shard-{rank}").write_bytes(b"weights")
            training.save(Save(folder, step, AnyFiles()))
        return training.flush()

    found = on_two_ranks(tmp_path / "vault", (tmp_path / "one", tmp_path / "two"), train)
    assert [result for result, _ in found] == [True, True], found
    assert "nobody has thought of this" in found[0][1].reasons("abandon")
    assert "checkpoint-2 committed" in found[0][1].reasons("commit")


class Told(TrainingObserver):
    """Notes what it is told, and fails at every step."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def began(self, session: Session, step: int) -> None:
        self.told.append(f"began {step}")

    def stepped(self, session: Session, step: int) -> None:
        self.told.append(f"stepped {step}")
        raise ValueError("a bug of the observer's")

    def flushing(self, session: Session) -> None:
        self.told.append("flushing")

    def finished(self, session: Session, step: int) -> None:
        self.told.append(f"finished {step}")

    def closed(self, session: Session) -> None:
        self.told.append("closed")


class Sees(TrainingObserver):
    """Counts how often it is told that bytes move."""

    count = 0

    def sending(self, session: Session) -> None:
        self.count += 1


def test_observers_hear_that_the_last_uploads_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the end waits for a slow upload, `vl run` has signs of life: it isn't taken for a hang."""
    monkeypatch.setattr(observers, "_observers", [])
    observe(seen := Sees())
    session, _ = a_session(str(tmp_path / "vault"), tmp_path / "output", bandwidth=10_000)
    training = Training(session)
    resume(session, TrainersFiles())
    training.begin(0)
    save(training, 2)
    assert training.flush()
    training.close()
    assert seen.count


def test_observers_are_told_and_end_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An observer hears of begin, each step, the last wait, the end and the close; what it raises is reported once."""
    monkeypatch.setattr(observers, "_observers", [])
    observe(told := Told())
    session, heard = a_session(str(tmp_path / "vault"), tmp_path / "output")
    training = Training(session)
    resume(session, TrainersFiles())
    training.begin(0)
    for step in (1, 2):
        training.at_step(step)
    save(training, 2)
    assert training.flush()
    training.finish(2, {})
    training.close()
    assert told.told == ["began 0", "stepped 1", "stepped 2", "flushing", "finished 2", "closed"]
    assert heard.reasons("trouble").count("a bug of the observer's") == 1
