"""Keeps the best weights in memory and a log of losses, with an early stop in variables, in a function."""

import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train_model(model, train_dl, valid_dl, epochs, patience):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
    best_wts, best_loss, waited = copy.deepcopy(model.state_dict()), float("inf"), 0
    train_log, valid_log = [], []
    for epoch in range(epochs):
        model.train()
        losses = []
        for x, y in train_dl:
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            valid_loss = sum(nn.functional.mse_loss(model(x), y).item() for x, y in valid_dl) / len(valid_dl)
        train_log.append(sum(losses) / len(losses))
        valid_log.append(valid_loss)
        if valid_loss < best_loss:
            best_loss, waited = valid_loss, 0
            best_wts = copy.deepcopy(model.state_dict())
        else:
            waited += 1
            if waited >= patience:
                print(f"stopped at {epoch}")
                break
    model.load_state_dict(best_wts)
    return model, train_log, valid_log


torch.manual_seed(145)
x = torch.randn(40, 3)
y = x.sum(1, keepdim=True)
train_dl = DataLoader(TensorDataset(x[:32], y[:32]), batch_size=8, shuffle=True)
valid_dl = DataLoader(TensorDataset(x[32:], y[32:]), batch_size=8)
model, *logs = train_model(nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 1)), train_dl, valid_dl, 12, 2)
torch.save({"model": model.state_dict(), "logs": logs}, "model.pt")
