"""Each epoch keeps the weights that it begins with, as a teacher of its batches."""

import copy

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(35)
loader = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=8, shuffle=True)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    teacher = copy.deepcopy(model)
    losses = []
    for (x,) in loader:
        with torch.no_grad():
            target = teacher(x)
        loss = ((model(x) - x) ** 2).mean() + 0.5 * ((model(x) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(epoch, sum(losses) / len(losses))

torch.save({"model": model.state_dict(), "losses": losses}, "model.pt")
