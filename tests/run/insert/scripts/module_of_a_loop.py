"""A module with a loop that other scripts call, once or in each of their processes."""

import torch


def train(model, batches, rate):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for epoch in range(3):
        for x in batches:
            optimizer.zero_grad()
            ((model(x) - x) ** 2).mean().backward()
            optimizer.step()
