"""Draws its batches with next(), and opens the loader again where it is through."""

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(12)
loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4, shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
batches = iter(loader)

for step in range(20):
    try:
        (batch,) = next(batches)
    except StopIteration:
        batches = iter(loader)
        (batch,) = next(batches)
    optimizer.zero_grad()
    ((model(batch) - batch) ** 2).mean().backward()
    optimizer.step()

torch.save(model.state_dict(), "model.pt")
