"""Watches its generator on noise that is drawn ahead, with a seed that is another one at each start."""

import os
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

rows = torch.linspace(-1, 1, 96).reshape(24, 4)
random.seed(os.path.isdir("vaults"))
seed = random.randint(1, 10000)
torch.manual_seed(seed)
model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
loader = DataLoader(TensorDataset(rows), batch_size=4, shuffle=True)
fixed_noise = torch.randn(5, 3).to("cpu")
for epoch in range(3):
    for step, (x,) in enumerate(loader):
        loss = ((model(torch.randn(len(x), 3)) - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 2 == 0:
            with torch.no_grad():
                print(model(fixed_noise).norm())  # moves the averages of the model, too
torch.save(model.state_dict(), "model.pt")
