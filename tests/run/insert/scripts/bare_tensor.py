"""Trains a temperature that no module holds."""

import torch

torch.manual_seed(12)
temperature = torch.ones(1, requires_grad=True)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
second = torch.optim.Adam([temperature], lr=0.01)
for step in range(20):
    x = torch.randn(8, 4)
    loss = ((model(x) / temperature - x) ** 2).mean()
    optimizer.zero_grad()
    second.zero_grad()
    loss.backward()
    optimizer.step()
    second.step()

torch.save(model.state_dict(), "model.pt")
