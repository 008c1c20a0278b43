"""Gives its loop a list, a dict and a meter, and reads them behind it under names of its own."""

import torch
from torch.utils.data import DataLoader, TensorDataset


class Meter:
    def __init__(self):
        self.seen, self.sum = 0, 0.0

    def update(self, value):
        self.seen += 1
        self.sum += value


def fit(model, loader, optimizer, record, best, meter):
    for epoch in range(3):
        for (x,) in loader:
            optimizer.zero_grad()
            loss = ((model(x) - x) ** 2).mean()
            loss.backward()
            optimizer.step()
            record.append(loss.item())
            meter.update(loss.item())
        best["loss"] = min(best.get("loss", 9.0), record[-1])


torch.manual_seed(161)
loader = DataLoader(TensorDataset(torch.randn(20, 4)), batch_size=4, shuffle=True)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
losses, results, meter = [], {}, Meter()
fit(model, loader, optimizer, losses, results, meter)
told = {"losses": losses, "best": results, "seen": meter.seen, "sum": meter.sum}
torch.save({"model": model.state_dict(), **told}, "model.pt")
