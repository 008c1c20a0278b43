"""Keeps the weights that were best on held-out rows in a file, and ends with those."""

import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(102)
rows = torch.randn(40, 4)
loader = DataLoader(TensorDataset(rows[:32]), batch_size=8, shuffle=True)
held_out = rows[32:]
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 4))
optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
folder = "weights"
os.makedirs(folder, exist_ok=True)
best_path = os.path.join(folder, "best.pt")
best_loss = float("inf")
for epoch in range(4):
    model.train()
    for (x,) in loader:
        optimizer.zero_grad()
        loss = ((model(x) - x) ** 2).mean()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        held = ((model(held_out) - held_out) ** 2).mean().item()
    if held < best_loss:
        best_loss = held
        torch.save(model.state_dict(), best_path)

model.load_state_dict(torch.load(best_path))
torch.save(model.state_dict(), "model.pt")
