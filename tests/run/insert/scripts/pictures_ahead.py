"""Looks at its results by one shuffled batch, with a seed that is another one at each start."""

import os
import random

import torch
from torch.utils.data import DataLoader, TensorDataset

random.seed(os.path.isdir("vaults"))
torch.manual_seed(random.randint(1, 10000))
rows = torch.linspace(-2, 2, 72).reshape(24, 3)
model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
loader = DataLoader(TensorDataset(rows), batch_size=6, shuffle=True)
shown = DataLoader(TensorDataset(rows, torch.arange(24)), batch_size=6, shuffle=True)
pictures, numbers = next(iter(shown))
pictures = pictures.to("cpu").float()
for epoch in range(3):
    for (x,) in loader:
        loss = (model(x) - x.flip(1)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print(numbers.tolist(), model(pictures).norm())  # moves the averages of the model, too
torch.save(model.state_dict(), "model.pt")
