"""Pretrains, freezes, trains the head and then all of it: calls of one function, which clips, schedules and counts."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def fit(net, data, rate, epochs, history, trained=None):
    """Train what is given, and return the last loss."""
    optimizer = torch.optim.AdamW(trained or net.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    steps = 0
    for epoch in range(epochs):
        net.train()
        for x, y in data:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            optimizer.step()
            steps += 1
            history.append((steps, loss.item()))
        scheduler.step()
    return loss.item()


def main(pretrain=True):
    torch.manual_seed(164)
    body, head = nn.Linear(4, 8), nn.Linear(8, 1)
    net = nn.Sequential(body, nn.BatchNorm1d(8), nn.Dropout(0.1), nn.ReLU(), head)
    x = torch.randn(32, 4)
    data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=True)
    curve, ends = [], []
    if pretrain:
        ends.append(fit(net, data, 0.05, 2, curve))
    for parameter in body.parameters():
        parameter.requires_grad = False
    ends.append(fit(net, data, 0.02, 2, curve, list(head.parameters())))
    for parameter in body.parameters():
        parameter.requires_grad = True
    ends.append(fit(net, data, 0.01, 2, curve))
    torch.save({"model": net.state_dict(), "curve": curve, "ends": ends}, "model.pt")


if __name__ == "__main__":
    main()
