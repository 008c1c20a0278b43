"""Gives the optimizer more to train on its way."""

import torch
from torch import nn

torch.manual_seed(32)
model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
for step in range(8):
    if step == 4:
        optimizer.add_param_group({"params": model[0].parameters()})
    loss = (model(torch.rand(4, 3)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.save(model.state_dict(), "model.pt")
