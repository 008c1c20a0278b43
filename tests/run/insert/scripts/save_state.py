"""Saves and loads its own states, as Accelerate's documentation has it."""

import argparse
import os

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--resume_from_checkpoint", default=None)
    args = parser.parse_args()

    accelerator = Accelerator(cpu=True, project_config=ProjectConfiguration(project_dir="project"))
    set_seed(13)
    rows = torch.randn(40, 6)
    loader = DataLoader(TensorDataset(rows), batch_size=8, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Dropout(0.1), torch.nn.Linear(12, 6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    accelerator.register_for_checkpointing(scheduler)

    first_epoch = 0
    if args.resume_from_checkpoint:
        accelerator.print(f"resumed from {args.resume_from_checkpoint}")
        accelerator.load_state(args.resume_from_checkpoint)
        first_epoch = int(os.path.basename(args.resume_from_checkpoint).removeprefix("step_")) // len(loader)

    for epoch in range(first_epoch, 3):
        model.train()
        for (batch,) in loader:
            loss = ((model(batch) - batch) ** 2).mean()
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        accelerator.save_state(f"project/step_{(epoch + 1) * len(loader)}")
    accelerator.end_training()
    torch.save(accelerator.unwrap_model(model).state_dict(), "model.pt")


if __name__ == "__main__":
    main()
