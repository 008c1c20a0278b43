"""An endless feed of a small loader, drawn from in epochs of another length, with noise and dropout in between."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Feed:
    def __init__(self, rows, size):
        self.loader = DataLoader(TensorDataset(rows), batch_size=size, shuffle=True)
        self._it = iter(self.loader)

    def __len__(self):
        return len(self.loader)

    def batch(self):
        try:
            return next(self._it)
        except StopIteration:
            self._it = iter(self.loader)
            return next(self._it)


torch.manual_seed(9)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 4))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
rows = torch.randn(21, 4)
feed = Feed(rows, 4)
for epoch in range(4):
    for number in range(5):
        (x,) = feed.batch()
        loss = ((model(x + 0.1 * torch.randn_like(x)) - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, torch.rand(()).item())
torch.save(model.state_dict(), "model.pt")
