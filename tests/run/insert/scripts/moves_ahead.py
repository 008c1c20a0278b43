"""What an epoch does ahead of its batches: a heat cools, an own generator draws the order, the weights are measured."""

import random

import torch

torch.manual_seed(61)
rows = torch.randn(36, 3)
goals = rows.sum(1, keepdim=True)
model = torch.nn.Linear(3, 1)


class Heat:
    def __init__(self, value):
        self.value = value

    def cool(self):
        self.value = max(1.0, 0.8 * self.value)


def measure():
    with torch.no_grad():
        return (model(rows) - goals).abs().mean().item()


class Course:
    def __init__(self):
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        self.heat, self.order = Heat(4.0), random.Random(3)
        self.clean = False

    def update(self, batch, weight):
        x = rows[batch] if self.clean else rows[batch] + 0.1 * torch.randn(6, 3)
        loss = weight * ((model(x) - goals[batch]) ** 2).mean() / self.heat.value
        self.optimizer.zero_grad()
        loss.backward()
        return loss

    def run(self):
        for epoch in range(4):
            if epoch == 1:
                self.clean = True
            self.total = 0.0
            self.heat.cool()
            order = self.order.sample(range(36), 36)
            weight = 1 / (1 + measure())
            for at in range(0, 36, 6):
                loss = self.update(order[at : at + 6], weight)
                self.optimizer.step()
                self.total += loss.item()
            for group in self.optimizer.param_groups:
                group["lr"] = 0.02 / (1 + self.total)


Course().run()
torch.save(model.state_dict(), "model.pt")
