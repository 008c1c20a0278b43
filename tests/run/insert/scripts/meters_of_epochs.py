"""Meters in lists and dicts: begun by each epoch, by a function that evaluates, and by one that goes through the batches."""

import torch


class AverageMeter:
    def __init__(self):
        self.reset()

    def reset(self):
        self.sum, self.count = 0.0, 0

    def update(self, value, n=1):
        self.sum += value * n
        self.count += n

    @property
    def avg(self):
        return self.sum / max(self.count, 1)


class Metrics:
    def __init__(self):
        self.meters = {}

    def add(self, name, value):
        if name not in self.meters:
            self.meters[name] = AverageMeter()
        self.meters[name].update(value)


torch.manual_seed(65)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
data = torch.utils.data.DataLoader(torch.randn(40, 3), batch_size=4, shuffle=True)
history, overall = [], Metrics()


def evaluate():
    meters = {"loss": AverageMeter(), "size": AverageMeter()}
    metrics = Metrics()
    with torch.no_grad():
        for x in data:
            meters["loss"].update(model(x).pow(2).mean().item(), len(x))
            metrics.add("size", float(len(x)))
        for one in meters.values():
            one.update(0.0)
    return meters["loss"].avg + metrics.meters["size"].avg


def train_epoch():
    meters = {"loss": AverageMeter()}
    sizes = [AverageMeter(), AverageMeter()]
    for x in data:
        loss = model(x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        meters["loss"].update(loss.item())
        for one in sizes:
            one.update(model.bias.item())
        overall.add("loss", loss.item())
    return meters["loss"].avg, [one.avg for one in sizes]


for epoch in range(3):
    history.append((train_epoch(), evaluate(), overall.meters["loss"].avg))
torch.save({"model": model.state_dict(), "history": history}, "model.pt")
