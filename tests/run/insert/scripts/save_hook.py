"""Writes its model by a hook of its own, and prepares one thing or another."""

import os

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from torch.utils.data import DataLoader, TensorDataset


class Options:
    resume_from_checkpoint = None
    with_loader = True


def write(models, weights, folder):
    for model in models:
        torch.save(model.state_dict(), os.path.join(folder, "unet.pt"))
        weights.pop()


def read(models, folder):
    models.pop().load_state_dict(torch.load(os.path.join(folder, "unet.pt")))


options = Options()
accelerator = Accelerator(cpu=True, project_config=ProjectConfiguration(project_dir="project"))
set_seed(33)
accelerator.register_save_state_pre_hook(write)
accelerator.register_load_state_pre_hook(read)
loader = DataLoader(TensorDataset(torch.randn(20, 4)), batch_size=5, shuffle=True)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
if options.with_loader:
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
else:
    model, optimizer = accelerator.prepare(model, optimizer)

done = 0
if options.resume_from_checkpoint:
    accelerator.load_state(options.resume_from_checkpoint)
    done = int(os.path.basename(options.resume_from_checkpoint).split("-")[1])
for epoch in range(done // 4, 3):
    for (x,) in loader:
        accelerator.backward(((model(x) - x) ** 2).mean())
        optimizer.step()
        optimizer.zero_grad()
    accelerator.save_state(f"project/state-{(epoch + 1) * 4}")
accelerator.end_training()
torch.save(accelerator.unwrap_model(model).state_dict(), "model.pt")
