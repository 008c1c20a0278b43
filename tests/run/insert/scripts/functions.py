"""The usual shape of an example: argparse, train(), evaluate(), main()."""

import argparse

import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset


def train(args, model, device, train_loader, optimizer, epoch):
    model.train()
    for batch_idx, (data, target) in enumerate(train_loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        output = model(data)
        loss = nn.functional.cross_entropy(output, target)
        loss.backward()
        optimizer.step()
        if batch_idx % args.log_interval == 0:
            print(f"epoch {epoch} [{batch_idx}/{len(train_loader)}] loss {loss.item():.6f}")


@torch.no_grad()
def evaluate(model, device, test_loader):
    model.eval()
    correct = 0
    for data, target in test_loader:
        correct += (model(data.to(device)).argmax(dim=1) == target.to(device)).sum().item()
    print(f"accuracy {correct / len(test_loader.dataset):.2f}")


def main():
    parser = argparse.ArgumentParser(description="a small classifier")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--log-interval", type=int, default=2)
    args = parser.parse_args()

    torch.manual_seed(2)
    device = torch.device("cpu")
    features = torch.randn(40, 6)
    data = TensorDataset(features, (features.sum(dim=1) > 0).long())
    train_loader = DataLoader(data, batch_size=8, shuffle=True, drop_last=True)
    test_loader = DataLoader(data, batch_size=20)

    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.25), nn.Linear(12, 2)).to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=args.lr)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.9)
    for epoch in range(1, args.epochs + 1):
        train(args, model, device, train_loader, optimizer, epoch)
        evaluate(model, device, test_loader)
        scheduler.step()

    torch.save(model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
