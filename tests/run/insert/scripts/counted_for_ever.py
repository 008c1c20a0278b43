"""Draws its rows until the loss is small, counted by itertools."""

from itertools import count

import torch
import torch.nn.functional as F

torch.manual_seed(107)
target = torch.randn(4, 1)


def features(x):
    return torch.cat([x**power for power in range(1, 5)], 1)


def get_batch(size=16):
    x = torch.randn(size, 1)
    return features(x), features(x) @ target


fc = torch.nn.Linear(4, 1)
for batch_idx in count(1):
    batch_x, batch_y = get_batch()
    fc.zero_grad()
    output = F.smooth_l1_loss(fc(batch_x), batch_y)
    loss = output.item()
    output.backward()
    for parameter in fc.parameters():
        parameter.data.add_(-0.1 * parameter.grad)
    if loss < 1e-3 or batch_idx >= 30:
        break
torch.save(fc.state_dict(), "model.pt")
