"""Epochs that a with block measures, in which an option begins a sum; the first rate of the next epoch follows it."""

import argparse
import contextlib
import time

import torch
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--tracked", type=int, default=1)
args = parser.parse_args([])


@contextlib.contextmanager
def measured():
    begun = time.perf_counter()
    yield
    print(f"{time.perf_counter() - begun:.1f} s")


torch.manual_seed(53)
loader = DataLoader(TensorDataset(torch.randn(36, 3)), batch_size=6, shuffle=True)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for epoch in range(3):
    with measured():
        model.train()
        if args.tracked:
            total = 0
        for (x,) in loader:
            loss = (model(x) - x.sum(1, keepdim=True)).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if args.tracked:
                total += loss.item()
    if args.tracked:
        for group in optimizer.param_groups:
            group["lr"] = 0.05 / (1 + total)
torch.save(model.state_dict(), "model.pt")
