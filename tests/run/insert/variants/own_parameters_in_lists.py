"""A list and a dict of the model's own parameters, which the loop changes, and of others beside them."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(6)
model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
clipped = [p for p in model.parameters() if p.ndim > 1]
moving = {"w": model[0].weight, "mean": torch.zeros(6, 4)}
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
loader = DataLoader(TensorDataset(torch.randn(24, 4)), batch_size=4, shuffle=True)
for epoch in range(3):
    for (x,) in loader:
        optimizer.zero_grad()
        loss = ((model(x) - x) ** 2).mean()
        loss.backward()
        optimizer.step()
        for p in clipped:
            p.data.clamp_(-0.2, 0.2)
        moving["mean"] = 0.9 * moving["mean"] + 0.1 * moving["w"].detach()
        moving["w"].data.add_(moving["mean"], alpha=0.01)
torch.save({"m": model.state_dict(), "mean": moving["mean"]}, "model.pt")
