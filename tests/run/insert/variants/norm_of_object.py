"""An object with a norm beside its model, which no optimizer trains, and with what it asks ahead of its batches."""

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(183)


class Mean(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return x - self.mean


class Course:
    def __init__(self):
        x = torch.randn(32, 3)
        self.loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=True)
        self.norm, self.mean = torch.nn.BatchNorm1d(3, affine=False), Mean()
        self.model = torch.nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.steps = 0

    def prepare(self, x):
        return self.norm(x)

    def epoch(self):
        if self.steps > 12:
            return
        for x, y in self.loader:
            loss = ((self.model(self.prepare(x) + self.mean(x)) - y) ** 2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.steps += 1

    def run(self):
        for epoch in range(4):
            self.epoch()


course = Course()
course.run()
torch.save({"model": course.model.state_dict(), "norm": course.norm.state_dict()}, "model.pt")
