"""The model that the protocol is held against: what it forbids, and that it agrees with the real transitions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vault.tools import claim, commit_step, entries, memory_store
from vaultlayer_hf.testing.model import ForbiddenError, Saved, VaultModel
from vaultlayer_hf.vault.retention.prune import retire


def saved(model: VaultModel, token: int, step: int, origin: int | None = None) -> Saved:
    """Commit a checkpoint in the model."""
    return model.commit(token, seq=step, step=step, folder=f"data/{token}/checkpoint-{step}", origin=origin)


def test_only_the_newest_claim_may_change_anything() -> None:
    """A writer that isn't the newest claim's can neither commit nor retire nor finish."""
    model = VaultModel()
    old = model.claim()
    first = saved(model, old, 10)
    saved(model, old, 20)
    model.claim()
    for step in (
        lambda: saved(model, old, 30),
        lambda: model.retire(old, [first.number]),
        lambda: model.forget(old, []),
        lambda: model.finish(old, 30),
    ):
        with pytest.raises(ForbiddenError, match="claimed"):
            step()


def test_what_must_not_be_retired() -> None:
    """The newest checkpoint, the one the run went on from, and one that was never committed stay or don't exist."""
    model = VaultModel()
    token = model.claim()
    first, second, third = (saved(model, token, step) for step in (10, 20, 30))
    for number, origin in ((third.number, None), (first.number, first.number), (99, None)):
        with pytest.raises(ForbiddenError):
            model.retire(token, [number], origin=origin)
    model.retire(token, [second.number])
    model.retire(token, [second.number])
    assert [item.step for item in model.line] == [30, 10]
    assert model.condemned == [second.folder]
    with pytest.raises(ForbiddenError, match="weren't retired"):
        model.forget(token, [first.folder])


def test_pins_need_no_claim_and_are_never_retired() -> None:
    """A pin is of a live checkpoint, whoever holds the vault; a pinned one can't be retired until it is let go."""
    model = VaultModel()
    token = model.claim()
    first, _ = saved(model, token, 10), saved(model, token, 20)
    model.pin(first.number, True)
    assert (model.last, model.token) == (4, token)
    with pytest.raises(ForbiddenError, match="in use"):
        model.retire(token, [first.number])
    model.pin(first.number, False)
    model.retire(token, [first.number])
    with pytest.raises(ForbiddenError, match="isn't live"):
        model.pin(first.number, True)


def test_a_folder_is_committed_once() -> None:
    """Two commits of one folder would share its objects, so the second is forbidden."""
    model = VaultModel()
    token = model.claim()
    saved(model, token, 10)
    with pytest.raises(ForbiddenError, match="before"):
        saved(model, token, 10)


def test_a_real_log_is_followed(tmp_path: Path) -> None:
    """The model takes the same steps as a real log, entry by entry, and notices a state that is another."""
    store = memory_store()
    writer = claim(store)
    first = commit_step(store, writer, tmp_path, 10, seq=1)
    other = claim(store)
    commit_step(store, other, tmp_path, 20, resumed_from=first.number)
    commit_step(store, other, tmp_path, 30, seq=2, resumed_from=first.number)
    retire(store, other, [other.state.commits[1]], {})
    other.append("finish", lambda state, _: state.done(30, {}), {"step": 30})
    model = VaultModel()
    origins = {writer.token: None, other.token: first.number}
    found = entries(store)
    for entry in found:
        model.follow(entry, origins[entry.token])
    assert (model.last, model.token, model.finished) == (len(found), other.token, 30)
    assert [item.step for item in model.line] == [30, 10]
    wrong = VaultModel()
    wrong.follow(found[0])
    with pytest.raises(ForbiddenError, match="follows"):
        wrong.follow(found[2])
    wrong.follow(found[1])
    wrong.follow(found[2])
    with pytest.raises(ForbiddenError, match="live checkpoints"):
        wrong.follow(found[3], None)  # as if the run had begun at step 0
