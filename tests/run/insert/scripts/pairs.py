"""Pairs of rows that are drawn by the dataset, two towers of one network, a dry run as an option."""

import argparse
import random

import torch
import torch.nn as nn
import torch.optim as optim
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset


class Pairs(Dataset):
    def __init__(self, count):
        generator = torch.Generator().manual_seed(count)
        self.rows = torch.randn(count, 4, generator=generator)
        self.kinds = torch.randint(0, 3, (count,), generator=generator)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        other = random.randint(0, len(self.rows) - 1)
        same = torch.tensor(float(self.kinds[index] == self.kinds[other]))
        return self.rows[index], self.rows[other], same


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower, self.top = nn.Linear(4, 6), nn.Linear(12, 1)

    def forward(self, one, other):
        return torch.sigmoid(self.top(torch.cat((self.tower(one), self.tower(other)), 1)))


def train(args, model, device, train_loader, optimizer, epoch):
    model.train()
    criterion = nn.BCELoss()
    for batch_idx, (one, other, targets) in enumerate(train_loader):
        one, other, targets = one.to(device), other.to(device), targets.to(device)
        optimizer.zero_grad()
        outputs = model(one, other).squeeze()
        loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()
        if batch_idx % args.log_interval == 0:
            print(f"Train Epoch: {epoch} {100.0 * batch_idx / len(train_loader):.0f}% {loss.item():.4f}")
            if args.dry_run:
                break


def test(model, device, test_loader):
    model.eval()
    with torch.no_grad():
        for one, other, targets in test_loader:
            model(one.to(device), other.to(device))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--gamma", type=float, default=0.7)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--seed", type=int, default=136)
    parser.add_argument("--log-interval", type=int, default=2)
    parser.add_argument("--save-model", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    device = torch.device("cpu")
    train_loader = DataLoader(Pairs(40), shuffle=True, batch_size=8)
    test_loader = DataLoader(Pairs(16), batch_size=8)
    model = Towers().to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = StepLR(optimizer, step_size=1, gamma=args.gamma)
    for epoch in range(1, args.epochs + 1):
        train(args, model, device, train_loader, optimizer, epoch)
        test(model, device, test_loader)
        scheduler.step()
    torch.save(model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
