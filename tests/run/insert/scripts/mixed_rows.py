"""Mixes rows by a factor that numpy draws, cuts gradients, and takes one cycle of rates over all steps."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def mixup(x, y, alpha=1.0):
    lam = np.random.beta(alpha, alpha)
    index = torch.randperm(x.size(0))
    return lam * x + (1 - lam) * x[index], y, y[index], lam


seed_everything(140)
loader = DataLoader(TensorDataset(torch.randn(40, 5), torch.randint(0, 3, (40,))), batch_size=5, shuffle=True)
model = nn.Sequential(nn.Linear(5, 10), nn.ReLU(), nn.Linear(10, 3))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters())
EPOCHS = 3
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, steps_per_epoch=len(loader), epochs=EPOCHS)
history = {"loss": [], "lr": []}
for epoch in range(EPOCHS):
    epoch_losses = []
    for x, y in loader:
        x, y_a, y_b, lam = mixup(x, y)
        optimizer.zero_grad()
        output = model(x)
        loss = lam * criterion(output, y_a) + (1 - lam) * criterion(output, y_b)
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        epoch_losses.append(loss.item())
        history["lr"].append(optimizer.param_groups[0]["lr"])
    history["loss"].append(np.mean(epoch_losses))
torch.save({"model": model.state_dict(), "history": {k: [float(v) for v in vs] for k, vs in history.items()}}, "model.pt")
