"""A class of its own around the optimizer, which sets the rate of each step by how many there were."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class ScheduledOptim:
    def __init__(self, optimizer, width, warmup):
        self._optimizer, self.width, self.warmup, self.n_steps = optimizer, width, warmup, 0

    def step_and_update_lr(self):
        self.n_steps += 1
        rate = self.width**-0.5 * min(self.n_steps**-0.5, self.n_steps * self.warmup**-1.5)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()

    def zero_grad(self):
        self._optimizer.zero_grad()


def train_epoch(model, training_data, optimizer):
    model.train()
    total = 0
    for x, y in training_data:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step_and_update_lr()
        total += loss.item()
    return total


torch.manual_seed(128)
data = DataLoader(TensorDataset(torch.randn(32, 4), torch.randint(0, 3, (32,))), batch_size=4, shuffle=True)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 3))
optimizer = ScheduledOptim(torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9), 8, 6)
for epoch in range(3):
    print(epoch, train_epoch(model, data, optimizer))
torch.save(model.state_dict(), "model.pt")
