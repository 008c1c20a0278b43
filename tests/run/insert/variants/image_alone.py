"""An image is optimized to have the features of another: no module is trained."""

import torch
from torch import nn

torch.manual_seed(1)
net = nn.Sequential(nn.Linear(6, 8), nn.Tanh()).eval()
content = torch.randn(1, 6)
image = content.clone().requires_grad_(True)
optimizer = torch.optim.Adam([image], lr=0.05)
target = net(torch.randn(1, 6)).detach()
for step in range(15):
    optimizer.zero_grad()
    loss = ((net(image + 0.01 * torch.randn_like(image)) - target) ** 2).mean()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        image.clamp_(-1, 1)
torch.save({"image": image.detach()}, "model.pt")
