"""What an epoch does ahead of its batches, or a round ahead of its step: neither done twice nor left out."""

from __future__ import annotations

import pytest

from tests.run.insert.kit import STEP, proposed
from vaultlayer_hf.run.insert.propose import Unrecognised, propose

BATCHES = """        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
"""
"""Of a loop over batches within one over epochs."""
BATCH = BATCHES.replace("        ", "    ")


def edited(tmp_path, text: str) -> str:
    """The edited script."""
    return proposed(tmp_path, STEP + text).after.decode()


def reason(tmp_path, text: str) -> str:
    """Why nothing is changed."""
    (tmp_path / "train.py").write_text(STEP + text)
    found = propose(tmp_path / "train.py", "v")
    assert isinstance(found, Unrecognised), found.after.decode()
    return found.reason


PASSES = {
    "an object that moves on": (
        "class Heat:\n    value = 4.0\n    def anneal(self):\n        self.value *= 0.7\nheat = Heat()\n",
        "    heat.anneal()\n",
        "        x = x / heat.value\n",
        'ckpt.carry(lambda: {"heat": heat}, in_pass=True)',
    ),
    "a field that is set back": (
        "class Sum:\n    value = 0.0\n    def note(self, x):\n        self.value += x\nseen = Sum()\n",
        "    seen.value = 0.0\n",
        "        seen.note(x)\n",
        'ckpt.carry(lambda: {"seen": seen}, in_pass=True)',
    ),
    "an order that a generator of its own draws": (
        "import random\nrng = random.Random(0)\n",
        "    order = rng.sample(range(9), 9)\n",
        "        x = rows[order[0]]\n",
        '(order,) = ckpt.carry(lambda: {"order": order}, in_pass=True)\n'
        '    ckpt.carry(lambda: {"rng": rng}, in_pass=True)',
    ),
    "a value of the counter": (
        "seen = 0\n",
        "    rate = 1 - 0.1 * seen\n",
        "        x = x * rate\n        seen += 1\n",
        '(rate,) = ckpt.carry(lambda: {"rate": rate}, in_pass=True)',
    ),
    "copies of the weights": (
        "",
        "    anchor = [p.detach().clone() for p in model.parameters()]\n",
        "        x = x + anchor[0]\n",
        '(anchor,) = ckpt.carry(lambda: {"anchor": anchor}, in_pass=True)',
    ),
    "what a function makes of the weights": (
        "def score():\n    return model(rows).sum()\n",
        "    weight = score()\n",
        "        x = x * weight\n",
        '(weight,) = ckpt.carry(lambda: {"weight": weight}, in_pass=True)',
    ),
}
"""What is made ahead of the loop, ahead of the batches and of them, and what brings it back."""


@pytest.mark.parametrize("what", PASSES)
def test_what_an_epoch_moves_on_ahead_of_its_batches_comes_back_behind_that(what: str, tmp_path) -> None:
    """A resume within an epoch runs that code again, with what the batches have left; that is replaced."""
    begin, ahead, batch, line = PASSES[what]
    after = edited(tmp_path, f"{begin}for epoch in range(3):\n{ahead}    for x in data:\n{batch}{BATCHES}")
    assert f"    {line}\n    for x in ckpt.batches(data):" in after


def test_parameters_that_an_epoch_lists_stay_the_model_s_own(tmp_path) -> None:
    """A list of the parameters is made again of the model: what a checkpoint holds of it would be copies."""
    ahead = "    every = list(model.parameters())\n    some = [p for p in model.parameters() if p.requires_grad]\n"
    clip = "        torch.nn.utils.clip_grad_norm_(every + some, 1.0)\n"
    after = edited(tmp_path, f"for epoch in range(3):\n{ahead}    for x in data:\n{BATCHES}{clip}")
    assert "carry" not in after


def test_sums_and_lists_in_attributes_belong_to_the_pass(tmp_path) -> None:
    """What an epoch begins in attributes, and its batches add to, goes on within the pass as variables do."""
    text = """class Runner:
    def fit(self):
        for epoch in range(3):
            self.total, self.losses = 0.0, []
            for x in data:
                optimizer.zero_grad()
                loss = model(x).sum()
                loss.backward()
                optimizer.step()
                self.total += loss.item()
                self.losses.append(loss.item())
            print(self.total, self.losses)
Runner().fit()
"""
    after = edited(tmp_path, text)
    assert "            self.total, self.losses = ckpt.carry(\n" in after
    assert after.count('"self.losses": self.losses') == 1, "nothing has set it ahead of the loop"


def test_while_loops_over_epochs_keep_what_they_draw(tmp_path) -> None:
    """Only ``for`` begins an epoch again with its random numbers: elsewhere what they have made comes back."""
    loop = "epoch = 0\nwhile epoch < 3:\n{}    for x in data:\n" + BATCHES + "    epoch += 1\n"
    drawn = loop.format("    order = torch.randperm(9)\n").replace("model(x)", "model(rows[order[x]])")
    assert '(order,) = ckpt.carry(lambda: {"order": order}, in_pass=True)' in edited(tmp_path, drawn)
    assert "a while loop draws others" in reason(tmp_path, loop.format("    show(torch.rand(1))\n"))


def test_rounds_that_are_left_out_count_where_rounds_are_counted(tmp_path) -> None:
    """``range()`` goes on by the number of steps, so a round that ``continue`` ends is one."""
    loop = "for step in range(9):\n    x = rows[step]\n    if step % 5 == 3:\n        continue\n" + BATCH
    assert "        ckpt.step()\n        continue\n" in edited(tmp_path, loop)
    kept = loop.replace("    optimizer.zero_grad()\n", "").replace(
        "    if step", "    model(x).sum().backward()\n    if step"
    )
    assert "whose gradients the next one adds to" in reason(tmp_path, kept + "    optimizer.zero_grad()\n")


def test_a_counter_ahead_of_a_round_that_is_left_out_is_no_number_of_steps(tmp_path) -> None:
    """What counts batches that make no step, too, comes back as a variable."""
    loop = """seen = 0
for epoch in range(3):
    for x in data:
        seen += 1
        if bad(x):
            continue
"""
    assert '(seen,) = ckpt.carry(lambda: {"seen": seen})' in edited(tmp_path, loop + BATCHES)
    moved = loop.replace("        seen += 1\n", "") + BATCHES + "        seen += 1\n"
    assert "seen = ckpt.resume()" in edited(tmp_path, moved)


@pytest.mark.parametrize(
    ("begin", "test", "step", "behind"),
    [
        ('state = {"n": 0}\n', 'state["n"] % 2 == 1', "", 'state["n"] += 1'),
        ("pending = seen = 0\n", "pending >= 8", "pending = 0", "seen += 1; pending += 1"),
    ],
)
def test_a_condition_that_changes_behind_its_step_is_noted(begin, test, step, behind, tmp_path) -> None:
    """Asked again at the round's end it would say another thing, or never hold: what it said is kept."""
    text = f"""{begin}for epoch in range(3):
    for x in data:
        model(x).sum().backward()
        if {test}:
            optimizer.step()
            optimizer.zero_grad()
            {step or "pass"}
        {behind}
"""
    after = edited(tmp_path, text)
    assert f"        if stepped := ({test}):\n" in after
    assert after.rstrip().endswith("        if stepped:\n            ckpt.step()\nckpt.finish()")


def test_objects_that_end_a_pass_are_asked_ahead_of_the_next_batch(tmp_path) -> None:
    """A pass that an object of the script's own has ended isn't gone on with."""
    text = """class Meter:
    count = 0
    def reset(self):
        self.count = 0
    def update(self):
        self.count += 1
meter = Meter()
for epoch in range(3):
    meter.reset()
    for i, x in enumerate(data):
        model(x).sum().backward()
        if (i + 1) % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
            meter.update()
        if meter.count >= 2:
            break
"""
    assert "if ckpt.batches_done > 1 and (meter.count >= 2):\n            break" in edited(tmp_path, text)


ASKED = {
    "left where enough is done": (
        "    if n >= 4:\n        break\n",
        "    if not ckpt.batches_done and (n >= 4):\n        break\n",
    ),
    "left out where too little is": (
        "    if n < 4:\n        print(n)\n    else:\n        continue\n",
        "    if ckpt.batches_done or (n < 4):\n",
    ),
    "asked by the weights": (
        "    if (model.weight > 4).any():\n        break\n",
        "    if not ckpt.batches_done and ((model.weight > 4).any()):\n",
    ),
}
"""What stands ahead of an epoch's batches, and what becomes of it."""


@pytest.mark.parametrize("what", ASKED)
def test_what_was_answered_ahead_of_a_pass_is_not_asked_again_within_it(what: str, tmp_path) -> None:
    """The batches may have changed the answer, and a resume within their pass would leave the rest of it out."""
    asks, line = ASKED[what]
    loop = f"n = 0\nfor epoch in range(9):\n{asks}    for x in data:\n{BATCHES}        n += 1\n"
    assert line in edited(tmp_path, loop)
    for_epochs = "    if epoch == 2:\n        continue\n"
    assert for_epochs in edited(tmp_path, loop.replace(asks, for_epochs))


def test_passes_that_a_condition_is_around_of_go_on(tmp_path) -> None:
    """``while`` and ``if`` around the batches, too; but a pass that was left may still be the newest one."""
    within = f"        for x in data:\n{BATCHES}        n += 1\n".replace("        ", "            ")
    within = within.replace("            for", "        for", 1)
    loop = f"n = 0\nfor epoch in range(9):\n    if n < 4:\n{within}"
    assert "    if ckpt.batches_done or (n < 4):\n" in edited(tmp_path, loop)
    loop = f"n = 0\nwhile n < 4:\n    for x in data:\n{BATCHES}        n += 1\n"
    assert "while (ckpt.finished is None and ckpt.batches_done) or (n < 4):\n" in edited(tmp_path, loop)
    assert "while n < 4:\n" in edited(tmp_path, f"{loop}        if n >= 4:\n            break\n")
