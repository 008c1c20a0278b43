"""A loop that counts its own steps, with micro-batches inside, as small language models are often trained."""

import math

import torch
from torch import nn

max_iters = 10
micro_steps = 2
vocabulary, block = 32, 8

torch.manual_seed(6)
tokens = torch.randint(0, vocabulary, (512,))


def get_batch():
    at = torch.randint(len(tokens) - block - 1, (4,))
    x = torch.stack([tokens[i : i + block] for i in at])
    y = torch.stack([tokens[i + 1 : i + 1 + block] for i in at])
    return x, y


def get_lr(it):
    return 1e-2 * (0.5 + 0.5 * math.cos(math.pi * it / max_iters))


model = nn.Sequential(nn.Embedding(vocabulary, 16), nn.Dropout(0.1), nn.Linear(16, vocabulary))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
iter_num = 0

X, Y = get_batch()
while True:
    for group in optimizer.param_groups:
        group["lr"] = get_lr(iter_num)
    for _ in range(micro_steps):
        X, Y = get_batch()
        loss = nn.functional.cross_entropy(model(X).flatten(0, 1), Y.flatten()) / micro_steps
        loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    iter_num += 1
    if iter_num >= max_iters:
        break

torch.save(model.state_dict(), "model.pt")
