"""Lets its weights decay ahead of each epoch, and saves its state behind each: its own resume begins with an epoch, too."""

import argparse
import os

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--resume_from_checkpoint", default=None)
args = parser.parse_args()
accelerator = Accelerator(cpu=True, project_config=ProjectConfiguration(project_dir="states"))
set_seed(148)
loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4, shuffle=True)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
first_epoch = 0
if args.resume_from_checkpoint:
    accelerator.load_state(args.resume_from_checkpoint)
    first_epoch = int(os.path.basename(args.resume_from_checkpoint).removeprefix("epoch_"))
for epoch in range(first_epoch, 3):
    with torch.no_grad():
        model.weight.mul_(0.9)
    for (batch,) in loader:
        accelerator.backward(((model(batch) - batch) ** 2).mean())
        optimizer.step()
        optimizer.zero_grad()
    accelerator.save_state(f"states/epoch_{epoch + 1}")
accelerator.end_training()
torch.save(accelerator.unwrap_model(model).state_dict(), "model.pt")
