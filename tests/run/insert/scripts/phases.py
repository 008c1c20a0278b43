"""Each epoch has a phase of training and one of validation, and the best one is remembered."""

import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def fit(model, loaders, criterion, optimizer, scheduler, epochs):
    best_loss, best_state = 1e9, copy.deepcopy(model.state_dict())
    for epoch in range(epochs):
        for phase in ["train", "val"]:
            if phase == "train":
                model.train()
            else:
                model.eval()
            running, seen = 0.0, 0
            for x, y in loaders[phase]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    loss = criterion(model(x), y)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                running += loss.item() * x.size(0)
                seen += x.size(0)
            if phase == "train":
                scheduler.step()
            print(f"{phase} {epoch} {running / seen:.4f}")
            if phase == "val" and running < best_loss:
                best_loss, best_state = running, copy.deepcopy(model.state_dict())
    return best_loss, best_state


torch.manual_seed(28)
x = torch.randn(36, 4)
y = x.sum(dim=1, keepdim=True)
loaders = {
    "train": DataLoader(TensorDataset(x[:24], y[:24]), batch_size=6, shuffle=True),
    "val": DataLoader(TensorDataset(x[24:], y[24:]), batch_size=6),
}
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.3)
best, state = fit(model, loaders, nn.MSELoss(), optimizer, scheduler, 4)
torch.save({"last": model.state_dict(), "best": best, "state": state}, "model.pt")
