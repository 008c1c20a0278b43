"""Trains the head alone first, then all of it with a lower rate: one function, called twice."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def fit(model, loader, optimizer, epochs):
    for epoch in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: {loss.item():.4f}")


torch.manual_seed(125)
body, head = nn.Linear(4, 8), nn.Linear(8, 1)
model = nn.Sequential(body, nn.ReLU(), head)
x = torch.randn(32, 4)
loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=True)
for parameter in body.parameters():
    parameter.requires_grad = False
fit(model, loader, torch.optim.Adam(head.parameters(), lr=0.05), 2)
for parameter in body.parameters():
    parameter.requires_grad = True
fit(model, loader, torch.optim.Adam(model.parameters(), lr=0.01), 3)
torch.save(model.state_dict(), "model.pt")
