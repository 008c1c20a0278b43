"""Trains the head alone, while a norm in the body goes on counting; the body is let go in a later epoch."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.body(x))


torch.manual_seed(27)
net = Net()
for parameter in net.head.parameters():
    parameter.requires_grad = False
optimizer = torch.optim.SGD(net.head.parameters(), lr=0.1)
net.head.weight.requires_grad = True
loader = DataLoader(TensorDataset(torch.randn(30, 4)), batch_size=6, shuffle=True)
for epoch in range(3):
    if epoch == 1:
        net.head.bias.requires_grad = True
        net.body[0].eval()
    for (x,) in loader:
        loss = (net(x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

torch.save(net.state_dict(), "model.pt")
