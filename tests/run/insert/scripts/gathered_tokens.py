"""Opens the loader in each epoch and draws the batches of an update ahead, to count what is in them."""

import math

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset

accelerator = Accelerator(cpu=True)
set_seed(122)
train_dataloader = DataLoader(TensorDataset(torch.randn(36, 4)), shuffle=True, batch_size=4)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
model, optimizer, train_dataloader = accelerator.prepare(model, optimizer, train_dataloader)
steps = 2
updates = math.ceil(len(train_dataloader) / steps)
remainder = len(train_dataloader) % steps or steps
for epoch in range(3):
    model.train()
    training_iterator = iter(train_dataloader)
    for update_step in range(updates):
        samples = []
        for _ in range(steps if update_step != updates - 1 else remainder):
            samples += [next(training_iterator)]
        count = sum(x.numel() for (x,) in samples)
        for (x,) in samples:
            accelerator.backward(((model(x) - x) ** 2).sum() / count)
        optimizer.step()
        optimizer.zero_grad()
torch.save(accelerator.unwrap_model(model).state_dict(), "model.pt")
