"""Opens the loader in each epoch, and draws as many batches with next() as an update takes."""

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(162)
loader = DataLoader(TensorDataset(torch.randn(44, 4)), batch_size=4, shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 4))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
history = []
for epoch in range(3):
    model.train()
    batches = iter(loader)
    total = 0.0
    for update in range(len(loader) // 2):
        optimizer.zero_grad()
        for (x,) in [next(batches) for _ in range(2)]:
            loss = ((model(x) - x) ** 2).mean() / 2
            loss.backward()
            total += loss.item()
        optimizer.step()
    scheduler.step()
    model.eval()
    history.append((update, total, model(torch.ones(1, 4)).sum().item()))
torch.save({"model": model.state_dict(), "history": history}, "model.pt")
