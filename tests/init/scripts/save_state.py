"""Saves and loads its own states, as Accelerate's documentation has it."""

import argparse
import os

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import ProjectConfiguration, set_seed
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpointing_steps", type=int, default=2)
    parser.add_argument("--resume_from_checkpoint", default=None)
    args = parser.parse_args()

    accelerator = Accelerator(
        cpu=True,
        project_config=ProjectConfiguration(project_dir="project"),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    set_seed(13)
    rows = torch.randn(40, 6)
    loader = DataLoader(TensorDataset(rows), batch_size=8, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Dropout(0.1), torch.nn.Linear(12, 6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    accelerator.register_for_checkpointing(scheduler)

    first_epoch, resume_step = 0, 0
    if args.resume_from_checkpoint:
        accelerator.print(f"resumed from {args.resume_from_checkpoint}")
        accelerator.load_state(args.resume_from_checkpoint)
        done = int(os.path.basename(args.resume_from_checkpoint).removeprefix("step_"))
        first_epoch, resume_step = divmod(done, len(loader))

    step = first_epoch * len(loader) + resume_step
    for epoch in range(first_epoch, 3):
        model.train()
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        batches = loader
        if args.resume_from_checkpoint and epoch == first_epoch and resume_step:
            batches = accelerator.skip_first_batches(loader, resume_step)
        for (batch,) in batches:
            loss = ((model(batch) - batch) ** 2).mean()
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            step += 1
            if step % args.checkpointing_steps == 0:
                accelerator.save_state(f"project/step_{step}")
    accelerator.end_training()
    torch.save(accelerator.unwrap_model(model).state_dict(), "model.pt")


if __name__ == "__main__":
    main()
