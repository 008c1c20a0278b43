"""Scripts for which `vl init` proposes nothing, as it can't bring their training back right: each with the reason."""

from __future__ import annotations

import pytest

from tests.run.insert.kit import STEP
from vaultlayer_hf.run.insert.propose import Unrecognised, propose


def reason(tmp_path, text: str) -> str:
    """Why a script of this text isn't recognised."""
    (tmp_path / "train.py").write_text(text)
    found = propose(tmp_path / "train.py", "v")
    assert isinstance(found, Unrecognised), found
    assert len(found.lines) == 5
    return found.reason


UNCLEAR = {
    "nothing in it calls backward": "",
    "optimizer.step() in line 6 is in no loop": """
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
""",
    "its step is in 3 loops (lines 5, 6, 7), and only epochs and their batches are followed": """
for part in range(5):
    for epoch in range(2):
        for x in data:
            model(x).sum().backward()
            optimizer.step()
""",
    "pool is an environment": """import envpool
pool = envpool.make("Pong-v5", env_type="gym")
for step in range(9):
    model(pool.step(0)).sum().backward()
    optimizer.step()
""",
    "line 6 makes an iterator that shuffles by random numbers of its own": """
import webdataset
rows = webdataset.WebDataset("rows-{000..009}.tar").shuffle(100).decode("pil")
for x in webdataset.WebLoader(rows, batch_size=4):
    model(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "line 7 makes an iterator that shuffles by random numbers of its own": """
import webdataset as wds

parts = [wds.ResampledShards("rows-{000..009}.tar"), wds.tarfile_to_samples()]
for x in wds.WebLoader(wds.DataPipeline(*parts), batch_size=4):
    model(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "line 5 makes an iterator that shuffles by random numbers of its own": """from webdataset import WebDataset
for x in torch.utils.data.DataLoader(WebDataset("rows.tar", shardshuffle=True)):
    model(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "draws the data anew at each start (randperm with the seed of line 4": """torch.manual_seed(hash("a name") % 1000)
rows = torch.ones(9, 2)[torch.randperm(9)]
for x in rows:
    model(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "line 12 steps the optimizer once more behind the loop of line 6: only steps of one loop": """
def epoch():
    for number, x in enumerate(data):
        model(x).sum().backward()
        if number % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    if number % 4 != 3:
        optimizer.step()
        optimizer.zero_grad()
for _ in range(3):
    epoch()
""",
    "it steps the optimizer in several loops (lines 8, 13), for a condition says in which": """
if profiled:
    for x in data:
        model(x).sum().backward()
        optimizer.step()
else:
    for again in range(2):
        for x in data:
            model(x).sum().backward()
            optimizer.step()
""",
    "line 7 goes through loader in an order that is drawn anew at each start (shuffled without a seed)": """
loader = torch.utils.data.DataLoader(rows, shuffle=True)
cache = []
for x in loader:
    cache.append(x * 2)
for number, x in enumerate(loader):
    model(cache[number]).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "line 7 makes known of a batch that is another one at each start (shuffled without a seed)": """
loader = torch.utils.data.DataLoader(rows, shuffle=True)
first = next(iter(loader))
known = Table(first)
for x in loader:
    model(known.of(x)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "line 8 goes through left within zip(), where the generator of left isn't seen": """
left = torch.utils.data.DataLoader(rows, shuffle=True, generator=torch.Generator().manual_seed(3))
right = torch.utils.data.DataLoader(rows, shuffle=True)
for epoch in range(3):
    for x, y in zip(left, right):
        model(x + y).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
""",
    "its training is in a loop of trainings (line 5)": """
for rate in (0.1, 0.01):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(2):
        for x in data:
            model(x).sum().backward()
            optimizer.step()
""",
    "it makes 2 Trainers (lines 6, 7)": """
from transformers import Trainer
a = Trainer(m)
b = Trainer(n)
a.train()
b.train()
""",
    "its loop is in fit(), which lines 9, 11 call more than once": """
def fit(n):
    for x in range(n):
        model(x).sum().backward()
        optimizer.step()
fit(1)
for n in range(3):
    fit(n)
""",
    "spread over methods that are called from outside of their class": """
class Runner:
    def epoch(self):
        for x in data:
            model(x).sum().backward()
            optimizer.step()
runner = Runner()
for _ in range(3):
    runner.epoch()
""",
    "line 6 makes optimizer anew within the loop": """
for step in range(9):
    if step == 5: optimizer = torch.optim.Adam(model.parameters())
    model(x).sum().backward()
    optimizer.step()
""",
    "env is an environment": """import gymnasium
env = gymnasium.make("CartPole-v1")
for step in range(9):
    model(env.step(0)).sum().backward()
    optimizer.step()
""",
    "where feed.Loader is in its data isn't known": """import feed
loader = feed.Loader()
for step in range(9):
    model(loader.next_batch()).sum().backward()
    optimizer.step()
""",
    "line 4 goes through a set": """words = list(set(open("text").read().split()))
for step in range(9):
    model(words).sum().backward()
    optimizer.step()
""",
    "line 6 draws the data anew at each start (shuffle without a seed)": """import random
torch.manual_seed(0)
random.shuffle(rows)
for x in rows:
    model(x).sum().backward()
    optimizer.step()
""",
    "at is a variable of the module that the loop changes from within functions": """at = 0
def batch():
    global at
    at += 1
    return data[at]
def main():
    for step in range(9):
        model(batch()).sum().backward()
        optimizer.step()
main()
""",
    "line 9 loads after the loop what the loop has written to path": """
for step in range(9):
    model(x).sum().backward()
    optimizer.step()
    if step == 5: torch.save(model.state_dict(), path)
model.load_state_dict(torch.load(path))
""",
    "sched.step() in line 9 comes after the end of the step": """sched = StepLR(optimizer, 1)
for i, x in enumerate(data):
    model(x).sum().backward()
    if i % 2 == 0:
        optimizer.step()
    sched.step()
""",
    "where a resume within the epoch would repeat it": """for e in range(3):
    model.weight.data.mul_(0.9)
    for x in data:
        model(x).sum().backward()
        optimizer.step()
""",
    "line 6 loads optimizer ahead of an epoch's batches": """
for e in range(3):
    optimizer.load_state_dict(first)
    for x in data:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
""",
    "line 5 changes schedule ahead of an epoch's batches": """def lower(sched):
    sched.step()
schedule = StepLR(optimizer, 1)
for e in range(3):
    lower(schedule)
    for x in data:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
""",
    "line 11 gives objective(), which holds the loop, to what calls it again and again": """import optuna
def objective(trial):
    for step in range(9):
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    return 0.0
optuna.create_study().optimize(objective, n_trials=9)
""",
    "update(), which steps the optimizer, is called at 2 places": """class Wrapper:
    def __init__(self, inner):
        self.inner_optimizer = inner
    def update(self):
        self.inner_optimizer.step()
wrapper = Wrapper(optimizer)
for x in data:
    optimizer.zero_grad()
    model(x).sum().backward()
    wrapper.update()
    wrapper.update()
""",
    "decides itself which batches make a step": """class Wrapper:
    def __init__(self, inner):
        self.inner_optimizer, self.seen = inner, 0
    def update(self):
        self.seen += 1
        if self.seen % 4 == 0:
            self.inner_optimizer.step()
wrapper = Wrapper(optimizer)
for x in data:
    model(x).sum().backward()
    wrapper.update()
""",
    "the condition of the step in line 13 changes after it": """class Scaler:
    def __call__(self, loss, optimizer, update=True):
        loss.backward()
        if update:
            optimizer.step()
scaler, at = Scaler(), 0
for epoch in range(3):
    for x in data:
        optimizer.zero_grad()
        scaler(model(x).sum(), optimizer, update=at % 2 == 0)
        at += 1
""",
    "line 7 makes image anew within the loop": """image = torch.zeros(2, requires_grad=True)
optimizer = torch.optim.SGD([image], lr=0.1)
for step in range(9):
    image = image.clamp(0, 1)
    optimizer.zero_grad()
    model(image).sum().backward()
    optimizer.step()
""",
    "draws the data anew at each start (randn without a seed)": """noise = torch.randn(2, 1)
goal = noise + noise.T
def batch():
    x = torch.randn(3, 2)
    return x, x @ goal
for step in range(9):
    optimizer.zero_grad()
    x, y = batch()
    (model(x) - y).sum().backward()
    optimizer.step()
""",
    "network isn't known in line 11": """
def build():
    network = torch.nn.Linear(2, 2)
    return torch.optim.SGD(network.parameters(), lr=0.1)

opt = build()
def fit():
    for x in data:
        opt.step()
        x.backward()
fit()
""",
    'line 7 steps opts["a"], an optimizer that has no name of its own': """opts = {"a": optimizer}
for x in data:
    model(x).sum().backward()
    opts["a"].step()
""",
    "line 5 goes through optimizers of a list": """for x in data:
    for one, opt in zip(models, optimizers):
        opt.zero_grad()
        one(x).sum().backward()
        opt.step()
""",
    "line 7 has a block on the line of its head": """for x in data:
    for opt in optimizers: opt.zero_grad()
    model(x).sum().backward()
    for opt in optimizers: opt.step()
""",
    "the model that opt trains isn't an argument of fit(), which trains it several times": """
def fit(opt):
    for x in data:
        opt.zero_grad()
        model(x).sum().backward()
        opt.step()

fit(optimizer)
fit(torch.optim.Adam(model.parameters()))
""",
    "line 6 waits for what another process sends": """for x in data:
    optimizer.zero_grad()
    model(workers.recv()).sum().backward()
    optimizer.step()
""",
    "Lightning Fabric isn't supported": """from lightning.fabric import Fabric
fabric = Fabric()
for x in data:
    fabric.backward(model(x).sum())
    optimizer.step()
""",
    "its loop is an Engine of Ignite": """from ignite.engine import Engine
def step(engine, x):
    model(x).sum().backward()
    optimizer.step()
Engine(step).run(data)
""",
    "its loop is fastai's Learner": """from fastai.vision.all import *
learn = vision_learner(dls, resnet18)
learn.fine_tune(3)
""",
    "its loop is Keras' fit()": """import keras
net = keras.Sequential([keras.layers.Dense(1)])
net.fit(x, y)
""",
    "Composer isn't supported": """from composer import Trainer
Trainer(model=model, max_duration="2ep").fit()
""",
    "Horovod starts its ranks": """import horovod.torch as hvd
for x in data:
    optimizer.zero_grad()
    model(x).sum().backward()
    optimizer.step()
""",
    "line 9 changes sampler.weights within the loop": """from torch.utils.data import WeightedRandomSampler
sampler = WeightedRandomSampler(rows, 9)
for epoch in range(3):
    for x in torch.utils.data.DataLoader(rows, sampler=sampler):
        optimizer.zero_grad()
        sampler.weights = x
        model(x).sum().backward()
        optimizer.step()
""",
    "line 6 goes through rows, which the epoch makes of the weights": """for epoch in range(3):
    rows = model(everything).argmax(1)
    for x in rows:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
""",
    "line 6 shuffles in place ahead of an epoch's batches": """import random
for epoch in range(3):
    random.shuffle(rows)
    for x in rows:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
""",
    "line 5 adds a group to optimizer ahead of an epoch's batches": """for epoch in range(3):
    optimizer.add_param_group({"params": more[epoch].parameters()})
    for x in data:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
""",
    "line 10 draws its batches with next()": """class Feed:
    def __init__(self, loader):
        self.loader = loader
        self.at, self.seen = iter(self.loader), 0
    def batch(self):
        self.seen += 1
        return next(self.at)
feed = Feed(data)
for step in range(9):
    optimizer.zero_grad()
    model(feed.batch()).sum().backward()
    optimizer.step()
""",
    "line 8 draws its batches with next()": """class Feed:
    def __init__(self, loader):
        self.at = iter(loader)
    def batch(self):
        return next(self.at)
feed = Feed(data)
for step in range(9):
    model(feed.batch()).sum().backward()
    optimizer.step()
""",
    "the loop in line 5 has no counter of its steps": """
while loss > 1:
    model(x).sum().backward()
    optimizer.step()
""",
    "line 5 has it make its Trainer again and again": """from transformers import Trainer
for fold in range(3):
    trainer = Trainer(m)
    trainer.train()
""",
    "line 9 has it make its Trainer again and again": """from transformers import Trainer
def tune(m):
    trainer = Trainer(m)
    trainer.train()
tune(m)
tune(n)
""",
    "the optimizer steps at several places that no one loop holds (lines 7, 9)": """
for x in data:
    model(x).sum().backward()
    optimizer.step()
model(x).sum().backward()
optimizer.step()
""",
    "line 5 draws the data anew at each start (random_split without a seed)": """
parts = torch.utils.data.random_split(rows, [8, 2])
order = torch.Generator()
order.manual_seed(0)
for x in torch.utils.data.DataLoader(parts[0], generator=order):
    model(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "(randperm with the seed of line 6, which is another one each time)": """import os
seed = int.from_bytes(os.urandom(2), "big")
torch.manual_seed(seed)
rows = torch.ones(9, 2)[torch.randperm(9)]
for x in rows:
    model(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "line 6 draws the data anew at each start (train_test_split without a seed)": """
from datasets import load_dataset
parts = load_dataset("rows").train_test_split(test_size=0.1)
for x in torch.utils.data.DataLoader(parts["train"]):
    model(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "draws the data anew at each start (shuffle without a seed), so a resume": """
from datasets import load_dataset
rows = load_dataset("rows", split="train").shuffle().select(range(100))
for x in torch.utils.data.DataLoader(rows):
    model(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
}
"""Why nothing is changed, and the end of a script of which that is said."""


@pytest.mark.parametrize("words", UNCLEAR)
def test_what_is_not_understood_is_said_with_its_line(tmp_path, words) -> None:
    """A loop that a resume couldn't bring back right is never edited on a guess: the reason is named."""
    assert words in reason(tmp_path, STEP + UNCLEAR[words])
