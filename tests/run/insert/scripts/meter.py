"""A meter is reset ahead of each epoch, and the schedule hangs on its average."""

import torch
from torch.utils.data import DataLoader, TensorDataset


class Meter:
    def __init__(self):
        self.reset()

    def reset(self):
        self.total, self.count = 0.0, 0

    def update(self, value, n):
        self.total += value * n
        self.count += n

    def average(self):
        return self.total / self.count


torch.manual_seed(32)
loader = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=8, shuffle=True)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.3)
meter = Meter()
averages = []
for epoch in range(4):
    meter.reset()
    for (x,) in loader:
        loss = ((model(x) - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        meter.update(loss.item(), len(x))
    schedule.step(meter.average())
    averages.append(meter.average())

torch.save({"model": model.state_dict(), "averages": averages, "total": meter.total}, "model.pt")
