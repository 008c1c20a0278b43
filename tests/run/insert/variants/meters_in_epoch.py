"""Meters in a dict and a list that each epoch begins in the loop itself."""

import torch


class Meter:
    def __init__(self):
        self.values = []

    def note(self, value):
        self.values = [*self.values, value]


torch.manual_seed(66)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
data = torch.utils.data.DataLoader(torch.randn(40, 3), batch_size=4, shuffle=True)
history = []
for epoch in range(3):
    meters = {"loss": Meter(), "bias": Meter()}
    both = [Meter(), Meter()]
    for x in data:
        loss = model(x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        meters["loss"].note(loss.item())
        for one in both:
            one.note(model.bias.item())
    for name, one in meters.items():
        history.append((name, sum(one.values), sum(both[1].values)))
torch.save({"model": model.state_dict(), "history": history}, "model.pt")
