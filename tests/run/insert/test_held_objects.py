"""What `vl init` finds of objects that a loop changes at one remove: in a list, by a method, for code out of sight."""

from __future__ import annotations

import pytest

from tests.run.insert.test_moved_ahead import BATCH, BATCHES, edited, reason


def test_only_what_scales_a_loss_is_looked_through(tmp_path) -> None:
    """The first argument of what makes a loss is no loss, such as a batch's predictions."""
    loop = BATCH.replace(
        "    loss = model(x).sum()\n    loss.backward()\n", "    pred = model(x)\n    {}.backward()\n"
    )
    loop = "from torch.nn import functional as F\nscaler = torch.amp.GradScaler()\nfor x in data:\n" + loop
    assert "ckpt.step()\n" in edited(tmp_path, loop.format("F.mse_loss(pred, x)"))
    assert "ckpt.step(loss=pred)\n" in edited(tmp_path, loop.format("scaler.scale(pred)"))


def test_a_closure_is_no_optimizer(tmp_path) -> None:
    """``optimizer.step(optim_closure)`` steps the optimizer, whatever its closure is called."""
    loop = "for x in data:\n    def optim_closure():\n" + BATCHES.rpartition("        optimizer.step")[0]
    after = edited(tmp_path, loop + "        return loss\n    optimizer.step(optim_closure)\n")
    assert "optimizer=optimizer)" in after


def test_of_two_methods_of_one_name_that_of_the_object_s_class_is_followed(tmp_path) -> None:
    """A call on ``self`` leads to its own class, to one that this is made of, or to one that is made of this."""
    text = """class Meter:
    def update(self):
        self.sum = self.sum + 1
class Base:
    rate = other = 1.0
    def lower(self):
        pass
    def fit(self):
        for x in data:
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
            self.update()
            self.lower()
    def update(self):
        self.rate *= 0.9
class Runner(Base):
    def lower(self):
        self.other *= 0.9
Runner().fit()
"""
    after = edited(tmp_path, text)
    assert '{"self.rate": self.rate, "self.other": self.other}' in after
    assert "self.sum" not in after[after.index("carry") :]


def test_variables_may_be_called_as_a_method_is(tmp_path) -> None:
    """A property of some class doesn't keep a variable of its name from coming back."""
    begin = "class Meter:\n    @property\n    def avg(self):\n        return 1.0\navg = 1.0\n"
    after = edited(tmp_path, f"{begin}for x in data:\n{BATCH}    avg = 0.9 * avg + 0.1 * loss.item()\n")
    assert '(avg,) = ckpt.carry(lambda: {"avg": avg})' in after


def test_what_is_made_of_itself_is_no_log(tmp_path) -> None:
    """A function with "log" in its name may return a number, which comes back; a bar around the batches doesn't."""
    after = edited(tmp_path, f"avg = 1.0\nfor x in data:\n{BATCH}    avg = logged_mean(avg, loss)\n")
    assert '(avg,) = ckpt.carry(lambda: {"avg": avg})' in after


def test_averages_are_known_by_their_class(tmp_path) -> None:
    """An AveragedModel is saved, whatever it is called."""
    begin = "from torch.optim.swa_utils import AveragedModel\nslow = AveragedModel(model)\n"
    after = edited(tmp_path, f"{begin}for x in data:\n{BATCH}    slow.update_parameters(model)\n")
    assert 'ckpt.add("slow", slow)' in after


def test_norms_outside_of_the_optimizer_are_saved(tmp_path) -> None:
    """A layer whose buffers each batch changes is saved, also where no optimizer trains anything of it."""
    loop = "norm = torch.nn.BatchNorm1d(2, affine=False)\nfor x in data:\n" + BATCH.replace(
        "(x)", "(norm(x))"
    )
    assert 'ckpt.add("norm", norm)' in edited(tmp_path, loop)
    assert "norm)" not in edited(tmp_path, loop.replace("for x", "norm.eval()\nfor x")).replace("norm(x)", "")


def test_norms_in_attributes_are_saved(tmp_path) -> None:
    """Modules that an object holds beside its model, and calls itself or in a method, have buffers that move."""
    text = """class Course:
    def __init__(self):
        self.norm, self.model = torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
    def prepare(self, x):
        return self.norm(x)
    def fit(self):
        for x in data:
            self.optimizer.zero_grad()
            self.model(self.prepare(x)).sum().backward()
            self.optimizer.step()
Course().fit()
"""
    assert 'ckpt.add("norm", self.norm)' in edited(tmp_path, text)
    part = text.replace("self.norm, self.model = torch.nn.BatchNorm1d(2),", "self.model =")
    assert "ckpt.add" not in edited(tmp_path, part.replace("self.norm(x)", "x"))


def test_optimizers_of_several_nets_name_each_of_them(tmp_path) -> None:
    """``[… for net in nets …]`` stands for all that are in ``nets``, be there a variable ``net`` or not."""
    begin = """encoder, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
nets = [encoder, head]
for net in nets:
    net.train()
optimizer = torch.optim.SGD([p for net in nets for p in net.parameters()], lr=0.1)
"""
    after = edited(tmp_path, f"{begin}for x in data:\n{BATCH}".replace("model(x)", "head(encoder(x))"))
    assert 'ckpt.add("encoder", encoder)\nckpt.add("head", head)\nckpt.resume()' in after
    grown = begin.replace("for net in nets:\n", "nets.append(torch.nn.Linear(2, 2))\nfor net in nets:\n", 1)
    assert "which modules those are isn't seen" in reason(tmp_path, f"{grown}for x in data:\n{BATCH}")


CALLBACK = """class Lower:
    rounds = 0
    def on_end(self):
        self.rounds += 1
"""


@pytest.mark.parametrize(
    ("made", "change", "line"),
    [
        (
            "calls = [Lower()]",
            "for one in calls:\n        one.on_end()",
            'ckpt.carry(lambda: {f"calls[{key}]": one for key, one in enumerate(calls)})',
        ),
        (
            'calls = {"a": Lower()}',
            "for one in calls.values():\n        one.on_end()",
            'ckpt.carry(lambda: {f"calls[{key}]": one for key, one in calls.items()})',
        ),
        (
            'calls = {"a": Lower()}',
            'calls["a"].on_end()',
            'ckpt.carry(lambda: {f"calls[{key}]": one for key, one in calls.items()})',
        ),
        (
            'calls = {"a": torch.optim.lr_scheduler.StepLR(optimizer, 1)}',
            'calls["a"].step()',
            'ckpt.carry(lambda: {f"calls[{key}]": one for key, one in calls.items()})',
        ),
    ],
)
def test_objects_in_lists_and_dicts_come_back_one_by_one(made, change, line, tmp_path) -> None:
    """Callbacks and schedules that the loop goes through stay the same objects, and get their state back."""
    after = edited(
        tmp_path, f"{CALLBACK}{made}\nfor epoch in range(3):\n    for x in data:\n{BATCHES}    {change}\n"
    )
    assert f"ckpt.resume()\n{line}\n" in after


def test_members_that_are_set_back_ahead_of_the_batches_come_back_there_too(tmp_path) -> None:
    """Meters that an epoch begins and its batches add to go on within the pass."""
    begin = "class Meter:\n    n = 0\n    def reset(self):\n        self.n = 0\n"
    begin += "    def note(self):\n        self.n += 1\n"
    loop = (
        "    for one in meters:\n        one.reset()\n    for x in data:\n"
        + BATCHES
        + "        meters[0].note()\n"
    )
    after = edited(tmp_path, f"{begin}meters = [Meter(), Meter()]\nfor epoch in range(3):\n{loop}")
    assert after.count("enumerate(meters)}, in_pass=True)") == 1


SWITCHES = {
    "dataset.mosaic": (
        "class Rows:\n    def __init__(self):\n        self.mosaic = True\n    def __getitem__(self, i):\n"
        "        return i if self.mosaic else -i\ndataset = Rows()\n",
        "dataset.mosaic = False",
    ),
    "NOISE": ("NOISE = 0.0\ndef collate(rows):\n    return rows + NOISE\n", "NOISE = 0.5"),
    "model.first.p": (
        "model = torch.nn.Sequential()\nmodel.first = torch.nn.Dropout(0.5)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n",
        "model.first.p = 0.0",
    ),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_what_is_switched_once_stays_switched_in_later_epochs(name: str, tmp_path) -> None:
    """A flag that the loop sets in one epoch, and only code out of its sight reads, comes back in the next ones."""
    begin, switch = SWITCHES[name]
    loop = f"for epoch in range(3):\n    if epoch == 1:\n        {switch}\n    for x in data:\n"
    line = f'({name},) = ckpt.carry(lambda: {{"{name}": {name}}})'
    assert line in edited(tmp_path, begin + loop + BATCHES)
    always = loop.replace("if epoch == 1", "if True").replace("    if True:\n        ", "    ")
    assert "carry" not in edited(tmp_path, begin + always + BATCHES)


UNSEEN = {
    "rows": "from shop import build\nrows = build()\nsizes = [16, 32]\n",
    "rows.inner": "from shop import build, Rows\nrows = build()\nrows.inner = Rows('rows')\nsizes = (16, 32)\n",
    "Rows": "from shop import Data\nclass Rows(Data):\n    def kept(self):\n        return 1\nsizes = {1: 16}\n",
}


@pytest.mark.parametrize("owner", UNSEEN)
def test_switches_of_what_is_not_seen_come_back_by_their_names(owner: str, tmp_path) -> None:
    """An attribute of a library's object gets its plain value back; of what else it may be given, the user is told."""
    loop = "for epoch in range(3):\n    if epoch == 1:\n        {}\n    for x in data:\n" + BATCHES
    for value in ("False", "sizes[epoch]", "epoch / 3", "min(9, epoch)"):
        after = edited(tmp_path, UNSEEN[owner] + loop.format(f"{owner}.level = {value}"))
        line = f'({owner}.level,) = ckpt.carry(lambda: {{"{owner}.level": {owner}.level}})'
        assert f'{owner}.level = getattr({owner}, "level", None)\n{line}\n' in after
    told = reason(tmp_path, UNSEEN[owner] + loop.format(f"{owner}.level = torch.nn.Identity()"))
    assert f"sets {owner}.level on the way, and what reads it isn't seen" in told


@pytest.mark.parametrize("made", ["types.SimpleNamespace()", "parser.parse_args()"])
def test_options_get_plain_values_back(made: str, tmp_path) -> None:
    """A flag of the options may be read anywhere; a path or the like among them is nobody's state."""
    begin = f"import types, argparse\nparser = argparse.ArgumentParser()\nargs = {made}\n"
    loop = "for epoch in range(3):\n    for x in data:\n" + BATCHES + "    if epoch == 1:\n        {}\n"
    assert "(args.noise,) = ckpt.carry" in edited(tmp_path, begin + loop.format("args.noise = 0.5"))
    assert "carry" not in edited(tmp_path, begin + loop.format("args.best = model.state_dict()"))


def test_a_class_of_the_scripts_own_that_a_function_makes_is_seen(tmp_path) -> None:
    """What the class reads comes back, what nobody reads doesn't, and both are known to be there at the start."""
    made = "class Rows:\n    size, name = 1, ''\n    def of(self, i):\n        return i + self.size\n"
    made += "def build():\n    rows = Rows()\n    return rows\nrows = build()\n"
    loop = "for epoch in range(3):\n    if epoch == 1:\n        rows.{} = 2\n    for x in data:\n"
    assert "(rows.size,) = ckpt.carry" in edited(tmp_path, made + loop.format("size") + BATCHES)
    assert "carry" not in edited(tmp_path, made + loop.format("name") + BATCHES)


def test_a_bar_is_no_counter(tmp_path) -> None:
    """No checkpoint has how far a bar is, so a loop that asks it is left alone."""
    loop = "from tqdm import tqdm\nbar = tqdm(total=9)\nn = 0\nwhile bar.n < 9:\n"
    loop += f"{BATCH}    bar.update(1)\n    n += 1\n"
    assert "line 7 asks bar.n" in reason(tmp_path, loop)
