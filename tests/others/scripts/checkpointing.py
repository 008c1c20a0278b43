"""Train a small classifier with Accelerate, saving states by step or by epoch and resuming from one that is named."""

import argparse
import os

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup


def get_dataloader(path, batch_size):
    rows = torch.load(path)
    return DataLoader(
        TensorDataset(rows["input_ids"], rows["labels"]), batch_size=batch_size, shuffle=True, drop_last=True
    )


def training_function(config, args):
    accelerator = Accelerator(
        cpu=True,
        project_dir=args.output_dir,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    checkpointing_steps = "epoch"
    if args.checkpointing_steps != "epoch":
        checkpointing_steps = int(args.checkpointing_steps)
    set_seed(config["seed"])
    train_dataloader = get_dataloader(args.train_file, config["batch_size"])
    model = BertForSequenceClassification(BertConfig.from_pretrained(args.config))
    optimizer = torch.optim.AdamW(params=model.parameters(), lr=config["lr"])
    lr_scheduler = get_linear_schedule_with_warmup(
        optimizer=optimizer,
        num_warmup_steps=2,
        num_training_steps=len(train_dataloader) * config["num_epochs"],
    )
    model, optimizer, train_dataloader, lr_scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, lr_scheduler
    )

    overall_step = 0
    starting_epoch = 0
    resume_step = None
    if args.resume_from_checkpoint:
        accelerator.print(f"Resumed from checkpoint: {args.resume_from_checkpoint}")
        accelerator.load_state(args.resume_from_checkpoint)
        name = os.path.basename(args.resume_from_checkpoint)
        if name.startswith("epoch_"):
            starting_epoch = int(name.removeprefix("epoch_")) + 1
        else:
            resume_step = int(name.removeprefix("step_"))
            starting_epoch = resume_step // len(train_dataloader)
            resume_step -= starting_epoch * len(train_dataloader)
        overall_step = starting_epoch * len(train_dataloader)

    for epoch in range(starting_epoch, config["num_epochs"]):
        model.train()
        train_dataloader.set_epoch(epoch)
        if args.resume_from_checkpoint and epoch == starting_epoch and resume_step is not None:
            active_dataloader = accelerator.skip_first_batches(train_dataloader, resume_step)
            overall_step += resume_step
        else:
            active_dataloader = train_dataloader
        for input_ids, labels in active_dataloader:
            outputs = model(input_ids=input_ids, labels=labels)
            accelerator.backward(outputs.loss)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            overall_step += 1
            if isinstance(checkpointing_steps, int) and overall_step % checkpointing_steps == 0:
                accelerator.save_state(os.path.join(args.output_dir, f"step_{overall_step}"))
        if checkpointing_steps == "epoch":
            accelerator.save_state(os.path.join(args.output_dir, f"epoch_{epoch}"))
        accelerator.print(f"epoch {epoch}: {outputs.loss.item():.6f}")
    accelerator.end_training()
    if accelerator.is_main_process:
        torch.save(accelerator.unwrap_model(model).state_dict(), os.path.join(args.output_dir, "model.pt"))


def main():
    parser = argparse.ArgumentParser(description="A simple training script.")
    parser.add_argument("--checkpointing_steps", default="epoch")
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--resume_from_checkpoint", default=None)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--config", required=True)
    args = parser.parse_args()
    training_function({"lr": 1e-3, "num_epochs": 3, "seed": 42, "batch_size": 4}, args)


if __name__ == "__main__":
    main()
