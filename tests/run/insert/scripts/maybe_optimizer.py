"""Has an optimizer only if it is asked for one."""

import sys

import torch
from torch import nn

torch.manual_seed(31)
model = nn.Linear(3, 1)
if "--adam" in sys.argv:
    opt = torch.optim.Adam(model.parameters())
for step in range(5):
    loss = (model(torch.rand(4, 3)) ** 2).mean()
    loss.backward()
    if "--adam" in sys.argv:
        opt.step()
    else:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    model.zero_grad()
torch.save(model.state_dict(), "model.pt")
