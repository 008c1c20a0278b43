"""Lowers its rate ahead of each epoch: a resume within the epoch would lower it once more."""

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(12)
loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4, shuffle=True)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    for group in optimizer.param_groups:
        group["lr"] *= 0.9
    for (batch,) in loader:
        optimizer.zero_grad()
        ((model(batch) - batch) ** 2).mean().backward()
        optimizer.step()

torch.save(model.state_dict(), "model.pt")
