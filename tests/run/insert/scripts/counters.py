"""Goes on until a count is reached that a file of its own may have begun; a second count is for the log."""

import os

import torch
from torch import nn

torch.manual_seed(22)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
tokens = 0
if os.path.exists("mine.pt"):
    tokens = torch.load("mine.pt")["tokens"]
since_log = 0
while True:
    for group in optimizer.param_groups:
        group["lr"] = 0.1 / (1 + tokens / 64)
    loss = (model(torch.rand(16, 3)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    tokens += 16
    since_log += 1
    if since_log == 4:
        print(tokens, loss.item())
        since_log = 0
    if tokens >= 160:
        break

torch.save({"model": model.state_dict(), "tokens": tokens, "since_log": since_log}, "model.pt")
