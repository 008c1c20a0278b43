"""Rounds of which some are left out, by number; objects in a list lower the rate, and an average follows the weights."""

import torch
from torch.optim.swa_utils import AveragedModel


class Lower:
    def __init__(self, optimizer, by):
        self.optimizer, self.by, self.rounds = optimizer, by, 0

    def on_step(self):
        self.rounds += 1
        for group in self.optimizer.param_groups:
            group["lr"] = 0.1 / (1 + self.by * self.rounds)


torch.manual_seed(62)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
slow = AveragedModel(model)
listeners = [Lower(optimizer, 0.1), Lower(optimizer, 0.2)]
trained = 0
for step in range(30):
    x = torch.randn(8, 3)
    loss = (model(x) - x.sum(1, keepdim=True)).abs().mean()
    if step % 5 == 3:
        continue
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    slow.update_parameters(model)
    trained += 1
    for one in listeners:
        one.on_step()
torch.save({"model": model.state_dict(), "slow": slow.state_dict(), "trained": trained}, "model.pt")
