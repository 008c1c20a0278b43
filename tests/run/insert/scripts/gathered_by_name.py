"""Gathers batches until a condition with a name of its own lets a step come, and keeps its model in an object."""

import torch
from torch.utils.data import DataLoader, TensorDataset


class Experiment:
    def __init__(self):
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 4))


torch.manual_seed(23)
experiment = Experiment()
optimizer = torch.optim.Adam(experiment.net.parameters(), lr=0.01)
loader = DataLoader(TensorDataset(torch.randn(44, 4)), batch_size=4, shuffle=True)
seen = 0
for epoch in range(3):
    for number, (x,) in enumerate(loader):
        loss = ((experiment.net(x) - x) ** 2).mean() / 2
        loss.backward()
        is_update = (number + 1) % 2 == 0 or number + 1 == len(loader)
        if is_update:
            optimizer.step()
            optimizer.zero_grad()
        seen += len(x)
torch.save(experiment.net.state_dict(), "model.pt")
