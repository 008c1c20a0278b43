"""A copy of the model on its device follows the weights, and a bank of rows is written in place."""

from copy import deepcopy

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(33)
device = torch.device("cpu")
rows = torch.randn(40, 4)
loader = DataLoader(TensorDataset(rows, torch.arange(40)), batch_size=8, shuffle=True)
model = torch.nn.Linear(4, 2).to(device)
slow = deepcopy(model).to(device).requires_grad_(False)
bank = torch.zeros(40, 2)
seen = [torch.zeros(2), torch.zeros(2)]


def follow(copy, original):
    for mine, new in zip(copy.parameters(), original.parameters()):
        mine.data.mul_(0.9).add_(new.data, alpha=0.1)


optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    for x, number in loader:
        out = model(x)
        loss = ((out - slow(x) - 1) ** 2).mean() + ((out - bank[number]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        follow(slow, model)
        bank[number] = 0.5 * bank[number] + 0.5 * out.detach()
        for one, value in zip(seen, (out.detach().mean(0), x.mean(0)[:2])):
            one.add_(value)

torch.save({"model": model.state_dict(), "slow": slow.state_dict(), "bank": bank, "seen": seen}, "model.pt")
