"""A class around all, with a scaler that is called, rates that an epoch lowers, and passes that end early."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Scaler:
    def __init__(self):
        self.scale, self.good = 2.0, 0
    def __call__(self, loss, optimizer, parameters=None):
        (loss * self.scale).backward()
        for p in parameters:
            p.grad.div_(self.scale)
        optimizer.step()
        self.good += 1
        if self.good % 3 == 0:
            self.scale *= 2

class Runner:
    def __init__(self):
        self.model = nn.Linear(4, 4)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        self.loader = DataLoader(TensorDataset(torch.randn(24, 4)), batch_size=4, shuffle=True)
        self.scaler = Scaler()

    def fit(self):
        for epoch in range(3):
            self.optimizer.param_groups[0]["lr"] *= 0.9
            for i, (x,) in enumerate(self.loader):
                self.optimizer.zero_grad()
                loss = (self.model(x) - x).pow(2).mean()
                self.scaler(loss, self.optimizer, self.model.parameters())
                if i == 4:
                    break

torch.manual_seed(3)
runner = Runner()
runner.fit()
torch.save({"m": runner.model.state_dict(), "scale": runner.scaler.scale}, "model.pt")
