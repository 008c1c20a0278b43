"""A classifier in the shape of large image trainings: options, a worker function, meters, a best score for the module."""

import argparse
import shutil
import time

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--start-epoch", type=int, default=0)
parser.add_argument("--resume", default="")
parser.add_argument("--evaluate", action="store_true")
best_score = 0.0


class Meter:
    def __init__(self, name):
        self.name = name
        self.reset()

    def reset(self):
        self.sum = self.count = 0

    def update(self, value, number=1):
        self.sum += value * number
        self.count += number


def main():
    args = parser.parse_args()
    main_worker(args)


def main_worker(args):
    global best_score
    torch.manual_seed(104)
    model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
    if args.resume:
        checkpoint = torch.load(args.resume)
        args.start_epoch = checkpoint["epoch"]
        best_score = checkpoint["best_score"]
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])
    rows, kinds = torch.randn(48, 6), torch.randint(0, 3, (48,))
    train_loader = DataLoader(TensorDataset(rows[:36], kinds[:36]), batch_size=6, shuffle=True)
    test_loader = DataLoader(TensorDataset(rows[36:], kinds[36:]), batch_size=6)
    if args.evaluate:
        validate(test_loader, model)
        return
    for epoch in range(args.start_epoch, args.epochs):
        train(train_loader, model, criterion, optimizer, epoch)
        score = validate(test_loader, model)
        scheduler.step()
        is_best = score > best_score
        best_score = max(score, best_score)
        save_checkpoint(
            {
                "epoch": epoch + 1,
                "model": model.state_dict(),
                "best_score": best_score,
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            },
            is_best,
        )
    torch.save({"model": model.state_dict(), "best": best_score}, "model.pt")


def train(loader, model, criterion, optimizer, epoch):
    took, losses = Meter("time"), Meter("loss")
    model.train()
    end = time.time()
    for i, (x, kind) in enumerate(loader):
        loss = criterion(model(x), kind)
        losses.update(loss.item(), x.size(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        took.update(time.time() - end)
        end = time.time()
        if i % 3 == 0:
            print(f"epoch {epoch}, batch {i}: {losses.sum / losses.count:.3f}")


def validate(loader, model):
    model.eval()
    right = 0
    with torch.no_grad():
        for x, kind in loader:
            right += (model(x).argmax(1) == kind).sum().item()
    return right / 12


def save_checkpoint(state, is_best, filename="checkpoint.pth.tar"):
    torch.save(state, filename)
    if is_best:
        shutil.copyfile(filename, "best.pth.tar")


if __name__ == "__main__":
    main()
