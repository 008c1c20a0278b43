"""A loop without end over iterations, micro-steps that draw their own batches, a rate that is worked out, a scaler."""

import math
import time
from contextlib import nullcontext

import numpy as np
import torch

eval_interval, eval_iters, max_iters, batch_size, block_size = 6, 2, 14, 4, 8
learning_rate, warmup_iters, lr_decay_iters, min_lr, decay_lr = 1e-2, 3, 14, 1e-3, True
gradient_accumulation_steps, grad_clip, always_save_checkpoint = 2, 1.0, False
init_from = "scratch"
torch.manual_seed(110)
tokens = np.random.RandomState(0).randint(0, 16, 400)
ctx = nullcontext()


def get_batch(split):
    data = tokens[:300] if split == "train" else tokens[300:]
    ix = torch.randint(len(data) - block_size, (batch_size,))
    x = torch.stack([torch.from_numpy(data[i : i + block_size].astype(np.int64)) for i in ix])
    y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + block_size].astype(np.int64)) for i in ix])
    return x, y


iter_num = 0
best_val_loss = 1e9


class Tokens(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(16, 12)
        self.drop = torch.nn.Dropout(0.1)
        self.head = torch.nn.Linear(12, 16)

    def forward(self, x, y):
        logits = self.head(self.drop(self.embed(x)))
        return logits, torch.nn.functional.cross_entropy(logits.view(-1, 16), y.view(-1))


model = Tokens()
scaler = torch.amp.GradScaler("cpu", enabled=False)
optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95))
checkpoint = None


@torch.no_grad()
def estimate_loss():
    out = {}
    model.eval()
    for split in ["train", "val"]:
        losses = torch.zeros(eval_iters)
        for k in range(eval_iters):
            X, Y = get_batch(split)
            with ctx:
                logits, loss = model(X, Y)
            losses[k] = loss.item()
        out[split] = losses.mean()
    model.train()
    return out


def get_lr(it):
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if it > lr_decay_iters:
        return min_lr
    ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (learning_rate - min_lr)


X, Y = get_batch("train")
t0 = time.time()
local_iter_num = 0
raw_model = model
running_mfu = -1.0
while True:
    lr = get_lr(iter_num) if decay_lr else learning_rate
    for param_group in optimizer.param_groups:
        param_group["lr"] = lr
    if iter_num % eval_interval == 0:
        losses = estimate_loss()
        print(f"step {iter_num}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        if losses["val"] < best_val_loss or always_save_checkpoint:
            best_val_loss = losses["val"]
            if iter_num > 0:
                torch.save({"model": raw_model.state_dict(), "iter_num": iter_num}, "ckpt.pt")
    for micro_step in range(gradient_accumulation_steps):
        with ctx:
            logits, loss = model(X, Y)
            loss = loss / gradient_accumulation_steps
        X, Y = get_batch("train")
        scaler.scale(loss).backward()
    if grad_clip != 0.0:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    t1 = time.time()
    dt = t1 - t0
    t0 = t1
    if iter_num % 2 == 0:
        lossf = loss.item() * gradient_accumulation_steps
        if local_iter_num >= 5:
            running_mfu = 0.9 * running_mfu + 0.1 / dt
        print(f"iter {iter_num}: loss {lossf:.4f}, {dt * 1000:.0f} ms")
    iter_num += 1
    local_iter_num += 1
    if iter_num > max_iters:
        break
torch.save(model.state_dict(), "model.pt")
