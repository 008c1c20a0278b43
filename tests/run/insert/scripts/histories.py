"""The lists that the loop fills are called in the caller what they are called in the loop."""

import torch
from torch.utils.data import DataLoader, TensorDataset


def fit(model, loader, optimizer, epochs):
    losses, seen = [], []
    count = 0
    for epoch in range(epochs):
        for (x,) in loader:
            loss = ((model(x) - x) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count += len(x)
            if count % 16 == 0:
                losses.append(loss.item())
                seen.append(count)
    return losses, seen


def main():
    torch.manual_seed(36)
    loader = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=8, shuffle=True)
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses, seen = fit(model, loader, optimizer, 3)
    torch.save({"model": model.state_dict(), "losses": losses, "seen": seen}, "model.pt")


main()
