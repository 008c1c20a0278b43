"""Each rank trains by itself, and they meet every few steps."""

import torch
from accelerate import Accelerator
from accelerate.local_sgd import LocalSGD

accelerator = Accelerator(cpu=True)
torch.manual_seed(27)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model, optimizer = accelerator.prepare(model, optimizer)
with LocalSGD(accelerator=accelerator, model=model, local_sgd_steps=4) as together:
    for step in range(8):
        loss = (model(torch.rand(4, 2)) ** 2).mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        together.step()
torch.save(model.state_dict(), "model.pt")
