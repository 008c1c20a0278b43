"""The loop is spread over the methods of a class, which counts for itself."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Runner:
    def __init__(self, model, loader, optimizer):
        self.model, self.loader, self.optimizer = model, loader, optimizer
        self.smooth = None
        self.log = []

    def _run_batch(self, x):
        self.optimizer.zero_grad()
        loss = ((self.model(x) - x) ** 2).mean()
        loss.backward()
        self.optimizer.step()
        self.smooth = loss.item() if self.smooth is None else 0.9 * self.smooth + 0.1 * loss.item()

    def _run_epoch(self, epoch):
        self.model.train()
        for (x,) in self.loader:
            self._run_batch(x)
        self.log.append((epoch, self.smooth))

    def fit(self, epochs):
        for epoch in range(epochs):
            self._run_epoch(epoch)


if __name__ == "__main__":
    torch.manual_seed(29)
    loader = DataLoader(TensorDataset(torch.randn(24, 4)), batch_size=6, shuffle=True)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.Linear(6, 4))
    runner = Runner(model, loader, torch.optim.AdamW(model.parameters(), lr=1e-2))
    runner.fit(3)
    torch.save({"model": model.state_dict(), "smooth": runner.smooth, "log": runner.log}, "model.pt")
