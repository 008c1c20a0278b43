"""A small network learns from a large one that stays as it is, at a temperature, with a warm-up per batch."""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset


def distil(student, teacher, loader, epochs, temperature=2.0):
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    scheduler = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 6))
    teacher.eval()
    for epoch in range(epochs):
        student.train()
        total = correct = 0
        for step, (x, y) in enumerate(loader):
            with torch.no_grad():
                wanted = teacher(x)
            found = student(x)
            soft = F.kl_div(F.log_softmax(found / temperature, 1), F.softmax(wanted / temperature, 1), reduction="batchmean")
            loss = 0.7 * soft * temperature**2 + 0.3 * F.cross_entropy(found, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += y.size(0)
            correct += (found.argmax(1) == y).sum().item()
        print(f"epoch {epoch}: {correct / total:.2f}, rate {scheduler.get_last_lr()[0]:.4f}")


if __name__ == "__main__":
    torch.manual_seed(139)
    large = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
    small = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.1), nn.Linear(4, 3))
    data = TensorDataset(torch.randn(32, 5), torch.randint(0, 3, (32,)))
    loader = DataLoader(data, batch_size=4, shuffle=True)
    if "--long" in sys.argv:
        distil(small, large, loader, 6)
    else:
        distil(small, large, loader, 3)
    torch.save(small.state_dict(), "model.pt")
