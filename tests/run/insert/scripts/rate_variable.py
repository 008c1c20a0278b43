"""Keeps its learning rate in a variable, and lowers it where an epoch was no better than the best one."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(24)
rows = torch.randn(24, 4)
loader = DataLoader(TensorDataset(rows, rows.sum(dim=1, keepdim=True)), batch_size=6, shuffle=True)
model = nn.Linear(4, 1)
rate, lowest, stale = 0.5, None, False
optimizer = torch.optim.SGD(model.parameters(), lr=rate)
for epoch in range(4):
    total = 0.0
    for x, y in loader:
        loss = ((model(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    if lowest is None or total < 0.2 * lowest:
        lowest = total
    else:
        stale = True
    if stale:
        rate *= 0.3
        for group in optimizer.param_groups:
            group["lr"] = rate

torch.save({"model": model.state_dict(), "rate": rate, "total": total, "epoch": epoch}, "model.pt")
