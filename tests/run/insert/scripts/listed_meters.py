"""Meters and counters that a loop goes through in lists which stand in its head: each comes back."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(15)
class Meter:
    def __init__(self): self.v = []
    def update(self, x): self.v.append(x)
    def mean(self): return sum(self.v) / len(self.v)
class Count:
    n = 0


loader = DataLoader(TensorDataset(torch.randn(40, 3)), batch_size=5, shuffle=True)
model = nn.Linear(3, 1)
opt = torch.optim.SGD(model.parameters(), lr=0.05)
loss_meter, bias_meter = Meter(), Meter()
first, second = Count(), Count()
out = []
for epoch in range(3):
    ep_a, ep_b = Meter(), Meter()
    for (x,) in loader:
        opt.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        opt.step()
        for m, v in zip((loss_meter, bias_meter), (loss.item(), model.bias.item())):
            m.update(v)
        for m in [ep_a, ep_b]:
            m.update(loss.item())
        for key, one in {"first": first, "second": second}.items():
            one.n += len(key)
    out.append((first.n, second.n, loss_meter.mean(), bias_meter.mean(), ep_a.mean(), ep_b.mean()))
torch.save({"m": model.state_dict(), "o": out}, "model.pt")
