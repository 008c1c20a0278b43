"""Counts and sums behind the step, every other batch of which makes one; a copy of the weights follows by hand."""

import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@torch.no_grad()
def follow(shadow, model, decay):
    for ours, theirs in zip(shadow.parameters(), model.parameters()):
        ours.mul_(decay).add_(theirs, alpha=1 - decay)


torch.manual_seed(30)
loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4, shuffle=True)
model = nn.Linear(4, 4)
shadow = copy.deepcopy(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
seen, losses = 0, []
for epoch in range(2):
    for number, (x,) in enumerate(loader):
        loss = ((model(x) - x) ** 2).mean() / 2
        loss.backward()
        if (number + 1) % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
            follow(shadow, model, 0.9)
        seen += len(x)
        losses.append(loss.item())

torch.save(
    {"model": model.state_dict(), "shadow": shadow.state_dict(), "seen": seen, "losses": losses}, "model.pt"
)
