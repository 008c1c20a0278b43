"""Leaves the batches, and then the epochs, once it has done enough steps."""

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(3)
loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4, shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.2))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
done, enough = 0, 13
for epoch in range(9):
    for (x,) in loader:
        optimizer.zero_grad()
        loss = ((model(x) - x) ** 2).mean()
        loss.backward()
        optimizer.step()
        done += 1
        if done >= enough:
            break
    if done >= enough:
        break
torch.save(model.state_dict(), "model.pt")
