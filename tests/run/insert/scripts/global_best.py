"""Functions that train and test for an epoch, and a best score and a first epoch of the module."""

import argparse
import os

import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--resume", "-r", action="store_true")
args = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
best_acc = 0
start_epoch = 0

torch.manual_seed(109)
rows, kinds = torch.randn(40, 5), torch.randint(0, 2, (40,))
trainloader = DataLoader(TensorDataset(rows[:32], kinds[:32]), batch_size=8, shuffle=True)
testloader = DataLoader(TensorDataset(rows[32:], kinds[32:]), batch_size=4)
net = nn.Sequential(nn.Linear(5, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Dropout(0.2), nn.Linear(10, 2)).to(device)
if args.resume:
    checkpoint = torch.load("./checkpoint/ckpt.pth")
    net.load_state_dict(checkpoint["net"])
    best_acc = checkpoint["acc"]
    start_epoch = checkpoint["epoch"]
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)


def train(epoch):
    net.train()
    train_loss = correct = total = 0
    for batch_idx, (inputs, targets) in enumerate(trainloader):
        inputs, targets = inputs.to(device), targets.to(device)
        optimizer.zero_grad()
        outputs = net(inputs)
        loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()
        train_loss += loss.item()
        total += targets.size(0)
        correct += outputs.max(1)[1].eq(targets).sum().item()
        print(batch_idx, len(trainloader), f"{train_loss / (batch_idx + 1):.3f} {100.0 * correct / total:.1f}%")


def test(epoch):
    global best_acc
    net.eval()
    correct = 0
    with torch.no_grad():
        for inputs, targets in testloader:
            correct += net(inputs.to(device)).max(1)[1].eq(targets.to(device)).sum().item()
    acc = 100.0 * correct / 8
    if acc > best_acc:
        state = {"net": net.state_dict(), "acc": acc, "epoch": epoch}
        if not os.path.isdir("checkpoint"):
            os.mkdir("checkpoint")
        torch.save(state, "./checkpoint/ckpt.pth")
        best_acc = acc


for epoch in range(start_epoch, start_epoch + 4):
    train(epoch)
    test(epoch)
    scheduler.step()
torch.save({"net": net.state_dict(), "best": best_acc}, "model.pt")
