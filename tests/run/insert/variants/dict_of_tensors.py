"""A schedule that each epoch makes anew, trained tensors in a dict, and passes that end by what was seen."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(6)
model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.Linear(6, 4))
extras = {"t": torch.ones(1, requires_grad=True), "s": torch.zeros(4, requires_grad=True)}
optimizer = torch.optim.AdamW([{"params": model.parameters()}, {"params": list(extras.values())}], lr=0.05)
loader = DataLoader(TensorDataset(torch.randn(24, 4)), batch_size=4, shuffle=True)
bad = 0
for epoch in range(4):
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1 / (epoch + 1), total_steps=len(loader))
    for x, in loader:
        optimizer.zero_grad()
        loss = ((model(x) * extras["t"] + extras["s"] - x) ** 2).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        extras["t"].data.clamp_(0.5, 1.05)
        bad = bad + 1 if loss.item() > 1.0 else 0
        if bad == 3:
            bad = 0
            break
torch.save({"m": model.state_dict(), **{k: v.detach() for k, v in extras.items()}}, "model.pt")
