"""The same Checkpointer again after an interruption, as a notebook has it: the loop's cell is run once more."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tests.kit.inside import listen, settle
from vaultlayer_hf import Checkpointer, SettingsError, open_vault
from vaultlayer_hf.base.events import Event

STEPS = 8


class Training:
    """A model with dropout, its optimizer, and a cell that trains them."""

    def __init__(self, folder: Path, **more: Any) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.3))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.folder = folder
        self.loader = DataLoader(torch.randn(12, 8), batch_size=4, shuffle=True)
        self.ckpt = Checkpointer(
            str(folder / "vault"),
            model=self.model,
            optimizer=self.optimizer,
            dataloader=self.loader,
            save_every="3 steps",
            output_dir=folder / "output",
            **more,
        )

    def guide(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The cell of a loop over step numbers."""
        for step in range(self.ckpt.resume(), STEPS):
            yield step, torch.randn(4, 8)

    def steps(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The cell of a loop over ``steps()``, whose resume() stands in another cell."""
        yield from self.ckpt.steps(total=STEPS)

    def learn(self, batch: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.model(batch).pow(2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def cell(self, form: str, act: Any = lambda: None, at: int | None = None) -> list[int]:
        """Run a cell; ``act`` within step ``at``. Returns the steps that were done."""
        done = []
        for step, batch in getattr(self, form)():
            loss = self.learn(batch)
            if step == at:
                settle(self.ckpt)  # one who is in a hurry waits for no upload
                act()
            self.ckpt.step(loss=loss)
            done.append(step)
        self.ckpt.finish()
        return done

    def weights(self) -> list[float]:
        """All of them."""
        return torch.cat([value.detach().flatten() for value in self.model.parameters()]).tolist()


def interrupt() -> None:
    """Ctrl-C, once."""
    signal.raise_signal(signal.SIGINT)  # os.kill's may come a moment late, and end pytest


def interrupt_twice() -> None:
    """Ctrl-C by somebody who doesn't wait."""
    interrupt()
    interrupt()


def fail() -> None:
    """An error of the loop's own, right behind a Ctrl-C."""
    interrupt()
    raise ZeroDivisionError


@pytest.mark.parametrize("form", ["guide", "steps"])
@pytest.mark.parametrize("act", [interrupt, interrupt_twice, fail])
def test_the_cell_is_run_again(tmp_path: Path, form: str, act: Any) -> None:
    """Nobody presses anything the second time: it goes on, commits, and ends as an unbroken run does."""
    whole = Training(tmp_path / "whole")
    whole.ckpt.resume()
    whole.cell(form)
    again = Training(tmp_path / "again")
    again.ckpt.resume()
    with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
        again.cell(form, act, at=4)
    if form == "steps" and act is not interrupt:
        again.ckpt.resume()  # the loop wasn't left by step(), so it can't know
    first = 5 if act is interrupt else 3
    assert again.cell(form) == list(range(first, STEPS))
    assert again.weights() == whole.weights()
    with open_vault(str(tmp_path / "again" / "vault")) as vault:
        assert vault.checkpoint().step == STEPS
        assert vault.state is not None
        assert vault.state.finished == STEPS


def test_a_loop_that_goes_on_is_not_begun_again(tmp_path: Path) -> None:
    """resume() in the middle of a loop only says where it is: nothing is loaded over what was trained since."""
    training = Training(tmp_path)
    training.ckpt.resume()
    heard: list[Event] = []
    listen(training.ckpt, heard.append)
    training.learn(torch.randn(4, 8))
    training.ckpt.step()
    before = training.weights()
    assert training.ckpt.resume() == 1
    assert training.weights() == before
    assert heard == []
    training.ckpt.close()


def test_a_training_is_tried_again_behind_except(tmp_path: Path) -> None:
    """An error that the script itself catches, within a step: resume() goes on from the newest checkpoint."""

    failed: list[bool] = []

    def fail_once() -> None:
        failed.append(True)
        if failed == [True]:
            raise ZeroDivisionError

    ended = []
    for name in ("again", "whole"):
        training = Training(tmp_path / name)
        for _ in range(2):
            try:
                training.ckpt.resume()
                done = training.cell("steps", fail_once, at=4)
                break
            except ZeroDivisionError:
                training.optimizer.zero_grad()
        ended.append((done, training.weights()))
    assert [done for done, _ in ended] == [list(range(3, STEPS)), list(range(STEPS))]
    assert ended[0][1] == ended[1][1]


def test_a_loop_alone_that_counts_by_itself_is_told(tmp_path: Path) -> None:
    """A loop that is run again without resume() would count from an old step: step() says what to call."""
    training = Training(tmp_path)
    training.ckpt.resume()
    with pytest.raises(KeyboardInterrupt):
        training.cell("guide", interrupt, at=1)
    with pytest.raises(SettingsError, match=r"call resume\(\) again"):
        training.ckpt.step()
    assert training.ckpt.resume() == 2
    training.ckpt.close()


def test_after_its_end_a_run_can_be_made_longer(tmp_path: Path) -> None:
    """The same Checkpointer goes on behind finish(), too: what is trained then is committed."""
    training = Training(tmp_path)
    training.ckpt.resume()
    training.cell("guide")
    assert training.ckpt.resume() == STEPS
    assert training.ckpt.finished == STEPS
    training.ckpt.step()
    training.ckpt.finish()
    with open_vault(str(tmp_path / "vault")) as vault:
        assert vault.checkpoint().step == STEPS + 1


CELL = """
losses = []
training.ckpt.resume()
(losses,) = training.ckpt.carry(lambda: {"losses": losses})
for step, batch in training.ckpt.steps(epochs=3):
    loss = training.learn(batch)
    if step in fails:
        fails.remove(step)
        raise ValueError("of the cell's own")
    losses.append(loss.item())
    training.ckpt.step()
training.ckpt.finish()
"""


@pytest.fixture
def shell() -> Iterator[Any]:
    """The shell of a notebook's kernel."""
    from IPython.core.interactiveshell import InteractiveShell

    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_a_cell_that_an_error_has_ended_is_run_again(shell: Any, tmp_path: Path) -> None:
    """It goes on from the newest checkpoint, and not in the middle of the step that the error has left."""
    whole = Training(tmp_path / "whole")
    shell.user_ns.update(training=whole, fails=set())
    assert shell.run_cell(CELL).success
    losses = shell.user_ns["losses"]
    again = Training(tmp_path / "again")
    shell.user_ns.update(training=again, fails={4, 7})
    assert [shell.run_cell(CELL).success for _ in range(3)] == [False, False, True]
    assert again.weights() == whole.weights()
    assert shell.user_ns["losses"] == losses


def test_variables_of_another_cell_are_kept_on(shell: Any, tmp_path: Path) -> None:
    """Only the loop's cell is run again behind a Ctrl-C: what another cell carries is saved as before."""
    training = Training(tmp_path)
    shell.user_ns.update(training=training, interrupt=interrupt)
    head = "seen = []\ntraining.ckpt.resume()\n(seen,) = training.ckpt.carry(lambda: {'seen': seen})"
    loop = """
for step, batch in training.ckpt.steps(epochs=3):
    training.learn(batch)
    seen.append(step)
    if step == 4 and seen.count(4) == 1:
        interrupt()
    training.ckpt.step()
"""
    assert shell.run_cell(head).success
    assert not shell.run_cell(loop).success
    assert shell.run_cell(loop).success
    training.ckpt.finish()
    again = Training(tmp_path)
    shell.user_ns.update(training=again)
    assert shell.run_cell(head).success
    assert shell.user_ns["seen"] == list(range(9))
    again.ckpt.close()


def test_a_loop_that_an_error_has_left_is_not_gone_on_with(shell: Any, tmp_path: Path) -> None:
    """In another cell nothing is saved, and no end is noted, of a state between two steps: resume() comes first."""
    training = Training(tmp_path)
    shell.user_ns.update(training=training, fails={4})
    assert not shell.run_cell(CELL).success
    ckpt = training.ckpt
    calls = [
        ckpt.step,
        ckpt.save,
        ckpt.finish,
        lambda: ckpt.batches(training.loader),
        lambda: ckpt.carry(dict),
    ]
    for call in calls:
        with pytest.raises(
            SettingsError, match=r"an error in the cell of this loop at step 4: call resume\(\)"
        ):
            call()
    settle(ckpt)
    with open_vault(str(tmp_path / "vault")) as vault:
        assert vault.checkpoint().step == 3
        assert vault.state is not None
        assert vault.state.finished is None
    assert shell.run_cell(CELL).success
    with open_vault(str(tmp_path / "vault")) as vault:
        assert vault.state is not None
        assert vault.state.finished == 9
