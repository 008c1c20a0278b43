"""A class that is given model and optimizer, which another function makes."""

import torch
from torch.utils.data import DataLoader, TensorDataset


class Trainer:
    def __init__(self, model, loader, optimizer):
        self.model, self.loader = model, loader
        self.optimizer = optimizer

    def _run_batch(self, x):
        self.optimizer.zero_grad()
        loss = ((self.model(x) - x) ** 2).mean()
        loss.backward()
        self.optimizer.step()

    def _run_epoch(self, epoch):
        for (x,) in self.loader:
            self._run_batch(x)

    def train(self, epochs):
        for epoch in range(epochs):
            self._run_epoch(epoch)


def parts():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return TensorDataset(torch.randn(32, 4)), model, optimizer


def main():
    torch.manual_seed(5)
    data, model, optimizer = parts()
    trainer = Trainer(model, DataLoader(data, batch_size=4, shuffle=True), optimizer)
    trainer.train(3)
    torch.save(model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
