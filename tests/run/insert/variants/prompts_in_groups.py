"""Prompts and a log of a temperature in groups of the model's optimizer, clamped on the way."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(1)
model = nn.Linear(6, 3)
prompts = [torch.randn(6, requires_grad=True) for _ in range(3)]
log_scale = torch.zeros((), requires_grad=True)
optimizer = torch.optim.Adam(
    [{"params": model.parameters()}, {"params": prompts, "lr": 0.1}, {"params": log_scale}], lr=0.05
)
loader = DataLoader(TensorDataset(torch.randn(24, 6)), batch_size=4, shuffle=True)
for epoch in range(3):
    for (x,) in loader:
        optimizer.zero_grad()
        loss = (model(x + sum(prompts)) * log_scale.exp()).pow(2).mean() - log_scale
        loss.backward()
        optimizer.step()
        for one in prompts:
            one.data.clamp_(-1, 1)
        log_scale.data.clamp_(max=0.1)
torch.save(
    {"model": model.state_dict(), "prompts": [p.detach() for p in prompts], "log": log_scale.detach()},
    "model.pt",
)
