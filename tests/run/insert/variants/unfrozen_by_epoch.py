"""Gives its optimizer a layer more at the end of each epoch, with a rate of its own, and a schedule beside it."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(7)
layers = [nn.Linear(4, 4) for _ in range(3)]
model = nn.Sequential(*layers)
for layer in layers[:2]:
    layer.requires_grad_(False)
optimizer = torch.optim.SGD(layers[2].parameters(), lr=0.1, momentum=0.9)
loader = DataLoader(TensorDataset(torch.randn(20, 4)), batch_size=4, shuffle=True)
for epoch in range(4):
    for (x,) in loader:
        loss = ((model(x) - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch < 2:
        layers[1 - epoch].requires_grad_(True)
        optimizer.add_param_group({"params": layers[1 - epoch].parameters(), "lr": 0.05})
torch.save(model.state_dict(), "model.pt")
