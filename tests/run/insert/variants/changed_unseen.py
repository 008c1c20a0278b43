"""Keeps what it goes by where no name of the loop is assigned: a class, a property, a table, a hook, a lambda, a layer."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Progress:
    step = 0
    rate = 0.05


class Schedule:
    def __init__(self):
        self.asked = 0

    @property
    def factor(self):
        self.asked += 1
        return 1 / (1 + 0.01 * self.asked)


class Table:
    def __init__(self):
        self.hits = {}

    def __getitem__(self, key):
        self.hits[key] = self.hits.get(key, 0) + 1
        return 1 / self.hits[key]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.memory = torch.zeros(8)
        self.register_buffer("slow", torch.zeros(8), persistent=False)

    def forward(self, x):
        h = torch.tanh(self.a(x) + 0.3 * self.memory + 0.3 * self.slow)
        self.memory = 0.9 * self.memory + 0.1 * h.detach().mean(0)
        self.slow.mul_(0.99).add_(0.01 * h.detach().mean(0))
        return self.b(h)


torch.manual_seed(7)
loader = DataLoader(TensorDataset(torch.randn(32, 4), torch.randint(0, 3, (32,))), batch_size=4, shuffle=True)
model, schedule, table = Net(), Schedule(), Table()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
stats = {"mean": torch.zeros(8)}
seen = []
push = lambda value: seen.append(value) or len(seen)
delta = torch.zeros(4, 4, requires_grad=True)


def watch(module, given, out):
    stats["mean"] = 0.9 * stats["mean"] + 0.1 * out.detach().mean(0)


model.a.register_forward_hook(watch)
for epoch in range(4):
    for x, y in loader:
        Progress.step += 1
        Progress.rate *= 0.97
        for group in optimizer.param_groups:
            group["lr"] = Progress.rate * schedule.factor * table[int(y[0])] / push(1)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x + delta), y) * (1 + stats["mean"].abs().mean())
        loss.backward()
        optimizer.step()
        delta.data = (delta.data + 0.1 * delta.grad.sign()).clamp(-0.3, 0.3)
        delta.grad.zero_()
print(Progress.step)
torch.save(model.state_dict(), "model.pt")
