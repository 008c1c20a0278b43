"""What `vl init` has a loop carry beside the model and the optimizer."""

from __future__ import annotations

import pytest

from tests.run.insert.kit import STEP, proposed


def test_objects_of_a_star_import_are_known(tmp_path) -> None:
    """A class that a script takes by ``import *`` from a module beside it is seen: its objects come back."""
    (tmp_path / "helpers.py").write_text(
        "class Patience:\n    bad = 0\n    def push(self, loss):\n        self.bad += loss > 1\n"
    )
    loop = """from helpers import *
patience = Patience()
for step in range(10):
    optimizer.zero_grad()
    loss = model(torch.ones(1, 2)).sum()
    loss.backward()
    optimizer.step()
    patience.push(loss.item())
"""
    assert b'ckpt.carry(lambda: {"patience": patience})' in proposed(tmp_path, STEP + loop).after


def test_networks_that_follow_the_model_come_back_out_of_lists_and_dicts_too(tmp_path) -> None:
    """A target that is loaded or moved along by the loop is saved, be it by its name or in what holds it."""
    loop = """nets, targets, shadow = {"a": torch.nn.Linear(2, 2)}, [torch.nn.Linear(2, 2)], make()
for step in range(10):
    optimizer.zero_grad()
    loss = model(torch.ones(1, 2)).sum()
    loss.backward()
    optimizer.step()
    nets["a"].load_state_dict(model.state_dict())
    for p, q, r in zip(targets[0].parameters(), model.parameters(), shadow.parameters()):
        p.data.mul_(0.9).add_(q.data * 0.1)
        r.detach().copy_(q)
"""
    after = proposed(tmp_path, STEP + loop).after.decode()
    assert 'ckpt.add("shadow", shadow)' in after
    assert 'targets, nets = ckpt.carry(lambda: {"targets": targets, "nets": nets})' in after


@pytest.mark.parametrize(
    "made",
    [
        "class Notes:\n    def __init__(self):\n        self.losses, self.seen = list(), 0\n        self.losses = []\n",
        "@dataclass(slots=True)\nclass Notes:\n    seen: int = 0\n    losses: list = field(default_factory=list)\n",
    ],
)
def test_lists_in_objects_of_the_scripts_own_come_back(made: str, tmp_path) -> None:
    """A history that the loop fills in an attribute is carried, as one in a variable is."""
    loop = f"""from dataclasses import dataclass, field
{made}
notes = Notes()
for step in range(10):
    optimizer.zero_grad()
    loss = model(torch.ones(1, 2)).sum()
    loss.backward()
    optimizer.step()
    notes.losses.append(loss.item())
"""
    assert (
        b'(notes.losses,) = ckpt.carry(lambda: {"notes.losses": notes.losses})'
        in proposed(tmp_path, STEP + loop).after
    )


def test_what_the_last_batch_leaves_is_there_behind_a_resume_at_it(tmp_path) -> None:
    """Names that only the batches set, and the code behind them reads, come back where no batch of the pass is left."""
    loop = """for epoch in range(3):
    for number, x in enumerate(data):
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
    print(number, loss.item())
"""
    after = proposed(tmp_path, STEP + loop).after.decode()
    assert "    number = loss = None\n" in after
    assert '    number, loss = ckpt.carry(lambda: {"number": number, "loss": loss}, in_pass=True)\n' in after


def test_variables_that_the_loop_hands_on_are_brought_back(tmp_path) -> None:
    """What one round leaves to the next, or to what stands behind the loop, comes back."""
    loop = """best, history = 9.0, []
for step in range(10):
    x = torch.ones(1, 2)
    loss = model(x).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
    if loss.item() < best:
        best = loss.item()
    if best < 0:
        break
print(loss.item(), [x for x in history])
"""
    found = proposed(tmp_path, STEP + loop)
    added = [line[1:] for hunk in found.hunks for line in hunk.diff if line[0] == "+"]
    assert "loss = None" in added
    line = 'loss, best, history = ckpt.carry(lambda: {"loss": loss, "best": best, "history": history})'
    assert line in added
    assert found.remarks == (
        "Line 15 ends the training early: a run that is started again after that goes on past it.",
    )
