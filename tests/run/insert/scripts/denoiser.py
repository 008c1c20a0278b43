"""Learns to take noise away: accumulates, saves states with hooks of its own, an average of the weights on demand."""

import argparse
import math
import os
import shutil

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm


class Averaged:
    def __init__(self, parameters, decay=0.9):
        self.shadow_params = [p.clone().detach() for p in parameters]
        self.decay, self.optimization_step = decay, 0

    @torch.no_grad()
    def step(self, parameters):
        self.optimization_step += 1
        for shadow, p in zip(self.shadow_params, parameters):
            shadow.sub_((1 - self.decay) * (shadow - p))

    def copy_to(self, parameters):
        for shadow, p in zip(self.shadow_params, parameters):
            p.data.copy_(shadow.data)

    def state_dict(self):
        return {"shadow_params": self.shadow_params, "optimization_step": self.optimization_step}

    def load_state_dict(self, state):
        self.shadow_params = [p.clone() for p in state["shadow_params"]]
        self.optimization_step = state["optimization_step"]


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", default="denoised")
    parser.add_argument("--no_ema", action="store_true")
    parser.add_argument("--max_train_steps", type=int, default=12)
    parser.add_argument("--num_train_epochs", type=int, default=4)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=2)
    parser.add_argument("--checkpointing_steps", type=int, default=5)
    parser.add_argument("--checkpoints_total_limit", type=int, default=1)
    parser.add_argument("--resume_from_checkpoint", default=None)
    args = parser.parse_args()
    args.use_ema = not args.no_ema
    return args


def main():
    args = parse_args()
    project = ProjectConfiguration(project_dir=args.output_dir)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=args.gradient_accumulation_steps, project_config=project)
    set_seed(120)
    os.makedirs(args.output_dir, exist_ok=True)
    unet = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.SiLU(), torch.nn.Linear(12, 6))
    if args.use_ema:
        ema_unet = Averaged(unet.parameters())

    def save_model_hook(models, weights, output_dir):
        if accelerator.is_main_process:
            if args.use_ema:
                torch.save(ema_unet.state_dict(), os.path.join(output_dir, "unet_ema.pt"))
            for model in models:
                torch.save(model.state_dict(), os.path.join(output_dir, "unet.pt"))
                weights.pop()

    def load_model_hook(models, input_dir):
        if args.use_ema:
            ema_unet.load_state_dict(torch.load(os.path.join(input_dir, "unet_ema.pt")))
        for _ in range(len(models)):
            models.pop().load_state_dict(torch.load(os.path.join(input_dir, "unet.pt")))

    accelerator.register_save_state_pre_hook(save_model_hook)
    accelerator.register_load_state_pre_hook(load_model_hook)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-2)
    train_dataloader = DataLoader(TensorDataset(torch.randn(40, 6)), shuffle=True, batch_size=4)
    lr_scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, args.max_train_steps)
    unet, optimizer, train_dataloader, lr_scheduler = accelerator.prepare(unet, optimizer, train_dataloader, lr_scheduler)
    num_update_steps_per_epoch = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
    global_step = 0
    first_epoch = 0
    if args.resume_from_checkpoint:
        if args.resume_from_checkpoint != "latest":
            path = os.path.basename(args.resume_from_checkpoint)
        else:
            dirs = sorted((d for d in os.listdir(args.output_dir) if d.startswith("checkpoint")), key=lambda x: int(x.split("-")[1]))
            path = dirs[-1] if len(dirs) > 0 else None
        if path is None:
            args.resume_from_checkpoint = None
            initial_global_step = 0
        else:
            accelerator.load_state(os.path.join(args.output_dir, path))
            global_step = int(path.split("-")[1])
            initial_global_step = global_step
            first_epoch = global_step // num_update_steps_per_epoch
    else:
        initial_global_step = 0
    progress_bar = tqdm(range(0, args.max_train_steps), initial=initial_global_step, disable=not accelerator.is_local_main_process)
    for epoch in range(first_epoch, args.num_train_epochs):
        unet.train()
        train_loss = 0.0
        for step, batch in enumerate(train_dataloader):
            with accelerator.accumulate(unet):
                noise = torch.randn_like(batch[0])
                target = noise
                model_pred = unet(batch[0] + 0.3 * noise)
                loss = F.mse_loss(model_pred.float(), target.float(), reduction="mean")
                avg_loss = accelerator.gather(loss.repeat(4)).mean()
                train_loss += avg_loss.item() / args.gradient_accumulation_steps
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(unet.parameters(), 1.0)
                optimizer.step()
                lr_scheduler.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                if args.use_ema:
                    ema_unet.step(unet.parameters())
                progress_bar.update(1)
                global_step += 1
                accelerator.log({"train_loss": train_loss}, step=global_step)
                train_loss = 0.0
                if global_step % args.checkpointing_steps == 0:
                    if accelerator.is_main_process:
                        checkpoints = sorted(
                            (d for d in os.listdir(args.output_dir) if d.startswith("checkpoint")),
                            key=lambda x: int(x.split("-")[1]),
                        )
                        if len(checkpoints) >= args.checkpoints_total_limit:
                            for removing_checkpoint in checkpoints[: len(checkpoints) - args.checkpoints_total_limit + 1]:
                                shutil.rmtree(os.path.join(args.output_dir, removing_checkpoint))
                        accelerator.save_state(os.path.join(args.output_dir, f"checkpoint-{global_step}"))
            logs = {"step_loss": loss.detach().item(), "lr": lr_scheduler.get_last_lr()[0]}
            progress_bar.set_postfix(**logs)
            if global_step >= args.max_train_steps:
                break
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        unet = accelerator.unwrap_model(unet)
        if args.use_ema:
            ema_unet.copy_to(unet.parameters())
        torch.save(unet.state_dict(), "model.pt")
    accelerator.end_training()


if __name__ == "__main__":
    main()
