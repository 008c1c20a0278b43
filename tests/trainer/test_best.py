"""load_best_model_at_end and rotation: what must survive on a new disk, in the vault, and beside new checkpoints."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kit.inside import callback_of, use_store
from tests.trainer.kit import (
    Boom,
    FailAt,
    Patient,
    Recorder,
    Tokens,
    big_model,
    state_of,
    steps_of,
    trainer,
    weights,
)
from vaultlayer_hf import Settings
from vaultlayer_hf.session.output_dir import checkpoints, settle
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation


class Chosen:
    """Makes a step the best: the metric there is better than anywhere else. Given to the Trainer's loss."""

    def __init__(self, best: int) -> None:
        self.best = best

    def install(self, run: Any) -> Any:
        evaluate = run.evaluate

        def better_at(*args: Any, **kwargs: Any) -> dict[str, float]:
            metrics: dict[str, float] = evaluate(*args, **kwargs)
            metrics["eval_loss"] = 1.0 if run.state.global_step == self.best else 2.0 + run.state.global_step
            return metrics

        run.evaluate = better_at
        return run


def best_run(output_dir: Path | str, best: int = 2, **more: Any) -> Any:
    """A run of 8 steps that evaluates and saves at each second, whose best step is ``best``."""
    common: dict[str, Any] = {
        "eval_dataset": Tokens(2),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "load_best_model_at_end": True,
    }
    return Chosen(best).install(trainer(output_dir, **{**common, **more}))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the final weights of an unbroken stock run: those of step 2."""
    run = best_run(tmp_path_factory.mktemp("best"), resume=None)
    run.train()
    return weights(run.model)


@pytest.mark.parametrize("limit", [1, 2, None])
@pytest.mark.parametrize("relative", [False, True])
def test_best_is_there_on_a_new_disk(
    limit: int | None, relative: bool, unbroken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best checkpoint outlives retention, comes to the new disk, survives rotation there, and is loaded.

    With an absolute output_dir and a relative one: the Trainer compares the best one's path as text.
    """
    vault = tmp_path / "vault"
    settings = Settings(vault=str(vault), keep_last=1, keep_best=False)
    first = best_run(
        tmp_path / "a", resume=settings, save_total_limit=limit, callbacks=[FailAt(7), Patient(vault)]
    )
    with pytest.raises(Boom):
        first.train()
    assert steps_of(vault) == [2, 6]

    monkeypatch.chdir(tmp_path)
    output_dir = Path("b") if relative else tmp_path / "b"
    second = best_run(output_dir, resume=settings, save_total_limit=limit)
    second.train()
    assert second.state.best_model_checkpoint == str(output_dir / "checkpoint-2")
    assert weights(second.model) == unbroken
    left = {1: [2], 2: [2, 8], None: [2, 6, 8]}[limit]
    assert list(checkpoints(tmp_path / "b")) == left


def test_state_of_the_restored_checkpoint(tmp_path: Path) -> None:
    """Only the best one's path differs in the restored trainer_state.json, and it exists."""
    vault = tmp_path / "vault"
    with pytest.raises(Boom):
        best_run(tmp_path / "a", resume=vault, callbacks=[FailAt(5), Patient(vault)]).train()
    run = best_run(tmp_path / "b", resume=vault)
    callback_of(run).pull()
    callback_of(run).close()
    before = json.loads((tmp_path / "a" / "checkpoint-4" / "trainer_state.json").read_text())
    after = json.loads((tmp_path / "b" / "checkpoint-4" / "trainer_state.json").read_text())
    assert before.pop("best_model_checkpoint") == str(tmp_path / "a" / "checkpoint-2")
    assert Path(after.pop("best_model_checkpoint")).is_dir()
    assert after == before


def test_best_only_run_is_over_when_it_has_ended(tmp_path: Path) -> None:
    """With save_strategy="best" the newest checkpoint may be the best and not the last: a finished run is over."""
    vault = tmp_path / "vault"
    if "BEST" not in _strategies() or not _records_best_step():
        pytest.skip("this transformers doesn't name the best checkpoint under save_strategy='best'")
    first = best_run(tmp_path / "a", best=4, resume=vault, save_strategy="best")
    first.train()
    assert (steps_of(vault)[-1], state_of(vault).finished) == (4, 8)
    second = best_run(tmp_path / "b", best=4, resume=vault, save_strategy="best")
    record = Recorder(second)
    second.train()
    assert record.of("finished")
    assert weights(second.model) == weights(first.model)


def _strategies() -> list[str]:
    from transformers.trainer_utils import SaveStrategy

    return list(SaveStrategy.__members__)


def _records_best_step() -> bool:
    import inspect

    import transformers

    return "SaveStrategy.BEST" in inspect.getsource(transformers.Trainer._save_checkpoint)


def test_best_is_not_superseded_in_the_queue(tmp_path: Path, unbroken: str) -> None:
    """While uploads are slower than saves, the newest replaces all that wait but the best, and that goes first."""
    vault = tmp_path / "vault"
    run = best_run(tmp_path / "a", best=4, resume=vault)
    released: list[bool] = []

    def hold_first(operation: Operation) -> Fault | None:
        if operation.name == "upload" and "/checkpoint-2/" in operation.key:
            return Fault(before=lambda _: _wait_until(released))
        return None

    _use(run, FaultStore(open_store(parse_vault(str(vault))), hold_first))
    from tests.trainer.kit import Do

    run.add_callback(Do(on_step_end=lambda state: released.append(True) if state.global_step == 8 else None))
    record = Recorder(run)
    run.train()
    assert [event.fields["step"] for event in record.of("commit")] == [2, 4, 8]
    assert [event.fields["step"] for event in record.of("abandon")] == [6]


def _wait_until(flags: list[bool]) -> None:
    end = time.monotonic() + 30
    while not flags and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)  # the last save is queued by then


def _use(run: Any, store: Any) -> None:
    """Have a trainer's vault use this store."""
    use_store(run, store)


@pytest.mark.parametrize("limit", [1, 2])
def test_rotation_keeps_the_new_ones(limit: int, tmp_path: Path) -> None:
    """A restored folder and leftovers of higher steps never make the Trainer delete a newer checkpoint."""
    vault, out = tmp_path / "vault", tmp_path / "out"
    with pytest.raises(Boom):
        trainer(out, resume=vault, callbacks=[FailAt(5), Patient(vault)], save_total_limit=limit).train()
    for step in (6, 100):  # what a killed process may leave: later, torn, and never committed
        (out / f"checkpoint-{step}").mkdir()
        (out / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"torn")
    seen: list[list[int]] = []
    from tests.trainer.kit import Do

    run = trainer(out, resume=vault, save_total_limit=limit)
    run.add_callback(Do(on_save=lambda state: seen.append(list(checkpoints(out)))))
    run.train()
    assert seen == {1: [[6], [8]], 2: [[4, 6], [6, 8]]}[limit]
    assert not (out / "_vaultlayer" / "aside" / "checkpoint-6").exists()  # superseded by a commit
    assert (out / "_vaultlayer" / "aside" / "checkpoint-100" / "model.safetensors").read_bytes() == b"torn"


def test_settled_folders_keep_their_order(tmp_path: Path) -> None:
    """Folders get mtimes in the order of their steps, apart by more than the second that the Trainer distrusts."""
    now = time.time()
    for step, age in ((2, 0), (10, 5000), (4, 1), (30, 0)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        os.utime(tmp_path / f"checkpoint-{step}", (now - age, now - age))
    settle(tmp_path, 10)
    found = checkpoints(tmp_path)
    assert list(found) == [2, 4, 10]
    ages = [now - found[step].stat().st_mtime for step in (10, 4, 2)]
    assert ages[0] == pytest.approx(5000, abs=1)
    assert ages[1] - ages[0] > 1
    assert ages[2] - ages[1] > 1


def test_local_retention(tmp_path: Path) -> None:
    """local_keep_last and local_keep_every thin out committed folders here, also those that the vault has retired."""
    vault, out = tmp_path / "vault", tmp_path / "out"
    settings = Settings(vault=str(vault), keep_last=1, local_keep_last=2, local_keep_every=6)
    run = trainer(
        out, resume=settings, model=big_model(), save_steps=1, max_steps=9, callbacks=[Patient(vault)]
    )
    run.train()
    assert list(checkpoints(out)) == [6, 8, 9]
    assert steps_of(vault) == [9]
    assert not list((out / "_vaultlayer").glob("old-*"))


def test_vault_retention(tmp_path: Path) -> None:
    """keep_last, keep_every and keep_best thin out the vault, and nothing of what was retired stays there."""
    vault = tmp_path / "vault"
    settings = Settings(vault=str(vault), keep_last=1, keep_every=6)
    more = {"load_best_model_at_end": False, "callbacks": [Patient(vault)]}
    best_run(tmp_path / "out", best=4, resume=settings, **more).train()
    assert steps_of(vault) == [4, 6, 8]
    assert sorted(path.name for path in (vault / "data" / "1").iterdir()) == [
        "checkpoint-4",
        "checkpoint-6",
        "checkpoint-8",
    ]
