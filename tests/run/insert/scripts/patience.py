"""Stops when an object of its own has seen too many epochs without progress."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Stopper:
    def __init__(self, allowed, least):
        self.allowed, self.least = allowed, least
        self.seen = []
        self.left = allowed

    def __call__(self, value):
        if self.seen and value > min(self.seen) - self.least:
            self.left -= 1
        self.seen.append(value)
        return self.left == 0


torch.manual_seed(26)
loader = DataLoader(TensorDataset(torch.randn(24, 4)), batch_size=6, shuffle=True)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
stopper = Stopper(3, 1.0)
for epoch in range(9):
    for (x,) in loader:
        loss = (model(x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if stopper(loss.item()):
        break

torch.save({"model": model.state_dict(), "epoch": epoch, "seen": stopper.seen}, "model.pt")
