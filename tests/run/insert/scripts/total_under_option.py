"""A sum over an epoch that only an option sets back, and whose end is kept."""

import argparse

import torch
from torch.utils.data import DataLoader, TensorDataset

options = argparse.Namespace(follow=True)
torch.manual_seed(4)
loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4, shuffle=True)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
history = []
for epoch in range(3):
    if options.follow:
        total = 0.0
    for (x,) in loader:
        optimizer.zero_grad()
        loss = ((model(x) - x) ** 2).mean()
        if options.follow:
            total += loss.item()
        loss.backward()
        optimizer.step()
    history.append(total)
torch.save({"model": model.state_dict(), "history": history}, "model.pt")
