"""A module counts its own calls, and is told to lower a share of its own: what it gives hangs on both."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Annealed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.calls, self.share = 0, 1.0

    def forward(self, x):
        if self.training:
            self.calls += 1
        return self.share * self.layer(x) / (1 + 0.05 * self.calls)

    def lower(self):
        self.share *= 0.9


torch.manual_seed(34)
loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=8, shuffle=True)
model = Annealed()
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
for epoch in range(4):
    for (x,) in loader:
        loss = ((model(x) - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.lower()

torch.save({"model": model.state_dict(), "calls": model.calls, "share": model.share}, "model.pt")
