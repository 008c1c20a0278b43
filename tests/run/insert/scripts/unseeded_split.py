"""Draws without a seed which rows it trains on."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

train, held_out = random_split(TensorDataset(torch.ones(20, 3)), [16, 4])
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    for (x,) in DataLoader(train, batch_size=4):
        loss = (model(x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
