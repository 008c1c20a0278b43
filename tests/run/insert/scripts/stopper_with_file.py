"""A patience of its own class, which also writes the best weights to a file that the end reads."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Stopper:
    def __init__(self, patience, path="stopper.pt"):
        self.patience, self.path = patience, path
        self.best, self.bad, self.stop = None, 0, False

    def __call__(self, score, model):
        if self.best is None or score < self.best:
            self.best, self.bad = score, 0
            self.keep(model)
        else:
            self.bad += 1
            self.stop = self.bad >= self.patience

    def keep(self, model):
        torch.save(model.state_dict(), self.path)


def run():
    torch.manual_seed(103)
    rows = torch.randn(32, 4)
    loader = DataLoader(TensorDataset(rows), batch_size=8, shuffle=True)
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.9)
    stopper = Stopper(patience=2)
    for epoch in range(20):
        for (x,) in loader:
            optimizer.zero_grad()
            loss = ((model(x) - x.roll(1, 1)) ** 2).mean()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            stopper(((model(rows) - rows.roll(1, 1)) ** 2).mean().item(), model)
        if stopper.stop:
            print("no better")
            break
    model.load_state_dict(torch.load("stopper.pt"))
    return model


if __name__ == "__main__":
    torch.save(run().state_dict(), "model.pt")
