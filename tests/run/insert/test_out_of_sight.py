"""State that no variable of a loop holds: it is named and comes back, or the loop is left alone with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.insert.kit import STEP, VARIANTS, proposed
from vaultlayer_hf.run.insert.propose import Unrecognised, propose

LOOP = """
for epoch in range(3):
    for x in data:
{ahead}
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
{behind}
"""
COUNTER = """
def make_counter():
    n = 0
    def tick():
        nonlocal n
        n += 1
        return n
    return tick
"""
LOST = {
    "changes n, which tick() keeps of make_counter()": (
        f"{COUNTER}tick = make_counter()",
        "rate = tick()",
        "",
    ),
    "changes n, which tick() keeps": (f"{COUNTER}rates = make_counter()", "rate = rates()", ""),
    "changes memory, a default of smooth() that all its calls share": (
        "def smooth(value, memory=[]):\n    memory.append(value)\n    return sum(memory)",
        "rate = smooth(x)",
        "",
    ),
    "draws what noise() keeps in its cache": (
        "import functools\n@functools.lru_cache\ndef noise(n):\n    return torch.randn(n)",
        "x = x + noise(2)",
        "",
    ),
    "changes table, which rate holds as a partial of lower()": (
        "import functools\ndef lower(table):\n    table['n'] += 1\nrate = functools.partial(lower, {'n': 0})",
        "rate()",
        "",
    ),
    "counts with itertools.count, whose place isn't in a checkpoint": (
        "import itertools\ncount = itertools.count()",
        "rate = 1 / (1 + next(count))",
        "",
    ),
    "draws with next() from rates(), and where that is isn't in a checkpoint": (
        "def rates():\n    rate = 1.0\n    while True:\n        yield rate\n        rate *= 0.9\nfeed = rates()",
        "rate = next(feed)",
        "",
    ),
    "changes model[0].p within the loop": ("", "", "    model[0].p *= 0.5"),
    "changes m.momentum within the loop": (
        "",
        "",
        "    for m in model.modules():\n        m.momentum = 0.5 / (1 + epoch)",
    ),
    "gives a part of the model other parameters within the loop": (
        "from torch.nn.utils import prune",
        "",
        "    prune.l1_unstructured(model, 'weight', amount=0.3)",
    ),
    "changes rows in place, which the TensorDataset of line": (
        "rows = torch.ones(4, 2)\ndata = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows))",
        "",
        "    rows.mul_(0.9)",
    ),
}
"""Words of the reason; what stands ahead of the loop, ahead of its step, and behind its batches."""


def script(ahead: str, body: str, behind: str) -> str:
    """The text of a script."""
    inner = "".join(f"        {line}\n" for line in body.splitlines())
    return STEP + ahead + LOOP.format(ahead=inner, behind=behind)


@pytest.mark.parametrize("words", LOST)
def test_what_no_checkpoint_finds_is_said(words: str, tmp_path: Path) -> None:
    """Closures, defaults, caches, partials, parts of the model: none of them begins anew behind an edit in silence."""
    (tmp_path / "train.py").write_text(script(*LOST[words]))
    found = propose(tmp_path / "train.py", "v")
    assert isinstance(found, Unrecognised), found
    assert words in found.reason


def test_what_reading_changes_comes_back(tmp_path: Path) -> None:
    """Attributes of classes, properties, tables, what hooks and lambdas change, tensors of a forward() are carried."""
    after = proposed(tmp_path, (VARIANTS / "changed_unseen.py").read_text()).after.decode()
    for name in ("Progress.step", "Progress.rate", "schedule", "table", "stats", "seen", "delta"):
        assert f'"{name}": {name}' in after, name
    for name in ("model.memory", "model.slow"):
        assert f'"{name}": {name}' in after, name


def test_a_function_that_only_others_call_is_no_second_training(tmp_path: Path) -> None:
    """``run()`` for who imports the script isn't called by it: the loop is in main(), which is called once."""
    loop = script("", "", "").removeprefix(STEP)
    inner = "".join(f"    {line}\n" for line in loop.splitlines())
    text = f"{STEP}def main():\n{inner}def run():\n    subprocess.run('x')\n    main()\nmain()\n"
    assert b"ckpt.finish()" in proposed(tmp_path, text).after


@pytest.mark.parametrize(("text", "told"), [("model.load_state_dict(torch.load('a'))\n", 1), ("", 0)])
def test_only_what_is_loaded_ahead_is_told(text: str, told: int, tmp_path: Path) -> None:
    """What the script loads behind its loop has nothing to do with what resume() brings back."""
    found = proposed(tmp_path, script(text, "", "") + "best = torch.load('b')\n")
    assert len([one for one in found.remarks if "loads stays" in one]) == told


def test_an_average_that_is_not_seen_need_not_know_its_state(tmp_path: Path) -> None:
    """An average of a class from elsewhere may have no state_dict(): its attributes are kept then."""
    text = script(
        "from helpers import Average\nema = Average(model) if fast else None\n", "ema.update(model)", ""
    )
    after = proposed(tmp_path, text.replace("fast", "len('x')")).after.decode()
    assert '"ema": ema' in after
    assert "ckpt.add" not in after


def test_a_sampler_of_images_is_no_schedule(tmp_path: Path) -> None:
    """diffusers' schedulers have a step() of three values, which belongs to the pictures that are drawn on the way."""
    text = f"""{STEP}
for epoch in range(3):
    for at, x in enumerate(data):
        loss = model(x).sum()
        loss.backward()
        if (at + 1) % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
        if at % 10 == 0:
            x = sampling_scheduler.step(model(x), at, x).prev_sample
"""
    assert b"ckpt.step(" in proposed(tmp_path, text).after
