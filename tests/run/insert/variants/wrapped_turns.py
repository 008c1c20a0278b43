"""A wrapper of an optimizer whose method is step(), too, and that keeps its rates; passes that end by chance."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Warm:
    def __init__(self, optimizer, steps):
        self.optimizer, self.steps, self.done, self.rates = optimizer, steps, 0, []

    def step(self):
        self.done += 1
        self.rates.append(0.05 * min(1.0, self.done / self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[-1]
        self.optimizer.step()

    def zero_grad(self):
        self.optimizer.zero_grad()


torch.manual_seed(5)
model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 4))
optimizer = Warm(torch.optim.Adam(model.parameters()), 9)
loader = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=4, shuffle=True)
for epoch in range(3):
    for number, (x,) in enumerate(loader):
        ((model(x + 0.1 * torch.randn_like(x)) - x) ** 2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if torch.rand(()).item() < 0.15:
            break
torch.save({"model": model.state_dict(), "rates": optimizer.rates}, "model.pt")
