"""Loops that stop where a job's time is over, or a signal says so: the next start is to go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaultlayer_hf.run.insert.propose import Proposal, Unrecognised, propose

LOOP = """
import signal
import threading
import time
from datetime import datetime, timedelta
from time import process_time as spent
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
loader = DataLoader(data, batch_size=4, shuffle=True)
start, stop, steps = time.time(), False, 0
until = datetime.now() + timedelta(hours=3)


told, over = False, threading.Event()


def on_term(number, frame):
    global told
    told = True


signal.signal(signal.SIGTERM, on_term)


def is_late():
    return time.monotonic() > 5e6


for epoch in range(5):
    begin = time.perf_counter()
    for x, y in loader:
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        {ends}
    if stop:
        break
    print(f"{{epoch}}: {{time.perf_counter() - begin:.1f}} s")
"""
CLOCKS = {
    "at once": "if time.time() - start > 3600: break",
    "noted": "if time.time() - start > 3600: stop = True; break",
    "through a variable": "elapsed = (time.time() - start) / 60\n        if steps > 10 and elapsed > 55: break",
    "a date": "if datetime.now() > until: break",
    "a function": "if is_late(): break",
    "a signal": "if told: break",
    "an event": "if over.is_set(): break",
    "a clock by another name": "if spent() > 3600: break",
}


@pytest.mark.parametrize("way", CLOCKS)
def test_a_loop_that_a_clock_ends_is_left_alone(way: str, tmp_path: Path) -> None:
    """The condition reads the clock, a variable, a function, or what a handler has set."""
    ends = CLOCKS[way].replace(": ", ":\n            ").replace("; ", "\n            ")
    found = _proposed(tmp_path, ends)
    assert isinstance(found, Unrecognised)
    assert "ends the loop by a clock or a signal" in found.reason


def test_a_loop_that_only_shows_the_time_is_edited(tmp_path: Path) -> None:
    """A clock that is printed, and an end that hangs on steps, stand in nobody's way."""
    ends = "if steps >= 50:\n            stop = True\n            break"
    found = _proposed(tmp_path, ends)
    assert isinstance(found, Proposal)
    assert found.after != found.before


@pytest.mark.parametrize("clock", ["datetime.utcnow()", "datetime.today()", "spent()", "time.monotonic_ns()"])
def test_what_a_clock_has_shown_is_not_carried(clock: str, tmp_path: Path) -> None:
    """The time of the last line belongs to the process that wrote it: behind a resume it would be another one's."""
    found = _proposed(tmp_path, f"print({clock} - shown)\n        shown = {clock}", f"shown = {clock}")
    assert isinstance(found, Proposal)
    added = [line for hunk in found.hunks for line in hunk.diff if line.startswith("+")]
    assert "shown" not in "".join(added)
    assert '"steps": steps' in "".join(added)


def _proposed(folder: Path, ends: str, begins: str = "") -> Proposal | Unrecognised:
    script = folder / "train.py"
    script.write_text(LOOP.replace("\nfor epoch", f"\n{begins}\nfor epoch").format(ends=ends))
    return propose(script)
