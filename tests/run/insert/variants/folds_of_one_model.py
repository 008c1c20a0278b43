"""Folds that begin with one model's first weights, and read what the fold before has left in lists and counters."""

import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(171)
x = torch.randn(24, 3)
loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=True)
model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 1))
first = copy.deepcopy(model.state_dict())
losses, told, slowest, rate = [], [], 0.0, 0.05
for fold in range(1, 4):
    told.append((len(losses), slowest, rate))
    model.load_state_dict(first)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for epoch in range(2):
        model.train()
        for batch, (x, y) in enumerate(loader):
            if batch == fold:
                continue
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.item())
            slowest = max(slowest, loss.item())
        scheduler.step()
        rate = rate * 0.9 if losses[-1] > 0.1 else rate
    model.eval()
    told.append(model(torch.ones(1, 3)).item())
torch.save({"model": model.state_dict(), "losses": losses, "told": told, "rate": rate}, "model.pt")
