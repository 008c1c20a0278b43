"""Gathers gradients over batches by hand, with what is left at the end of an epoch as a step of its own."""

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(143)
train_loader = DataLoader(TensorDataset(torch.randn(44, 4)), batch_size=4, shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=4)
accumulation_steps = 3
step_count, running = 0, 0.0
for epoch in range(3):
    optimizer.zero_grad()
    for batch_idx, (x,) in enumerate(train_loader):
        loss = ((model(x) - x) ** 2).mean() / accumulation_steps
        loss.backward()
        running += loss.item()
        if (batch_idx + 1) % accumulation_steps == 0 or (batch_idx + 1) == len(train_loader):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            step_count += 1
            print(step_count, running)
            running = 0.0
torch.save(model.state_dict(), "model.pt")
