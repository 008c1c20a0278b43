"""One function trains a teacher, then a student with it, and then the student alone, whose best weights go on."""

import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def fit(net, loader, optimizer, epochs, results, teacher=None):
    best, kept = float("inf"), None
    for epoch in range(epochs):
        net.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x), y)
            if teacher is not None:
                with torch.no_grad():
                    aim = teacher(x)
                loss = loss + nn.functional.mse_loss(net(x), aim)
            loss.backward()
            optimizer.step()
            total += loss.item()
        if total < best:
            best, kept = total, copy.deepcopy(net.state_dict())
        results["epochs"] = results.get("epochs", 0) + 1
    net.load_state_dict(kept)
    return best


torch.manual_seed(172)
x = torch.randn(20, 4)
loader = DataLoader(TensorDataset(x, x.prod(1, keepdim=True)), batch_size=4, shuffle=True)
results = {}
teacher = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
results["teacher"] = fit(teacher, loader, torch.optim.Adam(teacher.parameters(), lr=0.02), 2, results)
student = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.ReLU(), nn.Linear(4, 1))
optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
results["taught"] = fit(student, loader, optimizer, 2, results, teacher)
results["alone"] = fit(student, loader, optimizer, 2, results)
torch.save({"t": teacher.state_dict(), "s": student.state_dict(), "results": results}, "model.pt")
