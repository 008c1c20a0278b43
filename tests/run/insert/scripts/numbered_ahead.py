"""Batches that are numbered under a name ahead of each pass, on one rank with a bar around; the loader's own seed."""

import torch
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

RANK = 0
torch.manual_seed(37)
data = TensorDataset(torch.randn(20, 5), torch.randint(3, (20,)))
order = torch.Generator().manual_seed(11)
loader = DataLoader(data, batch_size=8, shuffle=True, drop_last=True, generator=order)
model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for epoch in range(6):
    mean = 0.0
    batches = enumerate(loader)
    if RANK == 0:
        batches = tqdm(batches, total=len(loader), leave=False)
    for number, (x, y) in batches:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = (mean * number + loss.item()) / (number + 1)
    for group in optimizer.param_groups:
        group["lr"] *= 0.9 if mean < 1.1 else 0.95
torch.save(model.state_dict(), "model.pt")
