"""A schedule and a function that change rates ahead of the batches, a rate that is read there, a generator that logs."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def progress(batches, every):
    for number, batch in enumerate(batches):
        if number % every == 0:
            print(number, len(batches))
        yield batch


def warm(optimizer, epoch):
    if epoch == 0:
        for group in optimizer.param_groups:
            group["lr"] *= 0.5


torch.manual_seed(4)
model = nn.Linear(5, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
loader = DataLoader(TensorDataset(torch.randn(32, 5), torch.randint(0, 2, (32,))), batch_size=4, shuffle=True)
for epoch in range(3):
    if epoch:
        scheduler.step()
    warm(optimizer, epoch)
    rate = optimizer.param_groups[0]["lr"]
    for x, y in progress(loader, every=3):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + torch.rand(()).item())
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
torch.save(model.state_dict(), "model.pt")
