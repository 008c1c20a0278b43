"""A bar that is made ahead of each pass, and that the batches come from; with a with block in the validation."""

import torch
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

torch.manual_seed(131)
loader = DataLoader(TensorDataset(torch.randn(32, 4)), shuffle=True, batch_size=4)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 4))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(3):
    loop = tqdm(loader, leave=False)
    running = 0.0
    for batch_idx, (x,) in enumerate(loop):
        loss = ((model(x) - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()
        loop.set_description(f"epoch {epoch}")
        loop.set_postfix(loss=running / (batch_idx + 1))
torch.save(model.state_dict(), "model.pt")
