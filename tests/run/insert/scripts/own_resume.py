"""Has a resume of its own, by epochs, from a file that is there whenever an epoch has ended on this disk."""

import argparse
import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--start-epoch", type=int, default=0)
args = parser.parse_args()

torch.manual_seed(25)
loader = DataLoader(TensorDataset(torch.randn(20, 3)), batch_size=5, shuffle=True)
model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.2))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
if os.path.isfile("last.tar"):
    saved = torch.load("last.tar")
    args.start_epoch = saved["epoch"]
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])

for epoch in range(args.start_epoch, args.epochs):
    for (x,) in loader:
        loss = ((model(x) - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(
        {"epoch": epoch + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, "last.tar"
    )

torch.save(model.state_dict(), "model.pt")
