"""A loader class of the script's own that walks through tokens, and an optimizer that a method of the model makes."""

import torch
from torch import nn
from torch.nn import functional as F


class LightLoader:
    def __init__(self, B, T):
        self.B, self.T = B, T
        self.tokens = torch.randint(0, 16, (200,), generator=torch.Generator().manual_seed(1))
        self.reset()

    def reset(self):
        self.current_position = 0

    def next_batch(self):
        B, T = self.B, self.T
        piece = self.tokens[self.current_position : self.current_position + B * T + 1]
        x, y = piece[:-1].view(B, T), piece[1:].view(B, T)
        self.current_position += B * T
        if self.current_position + (B * T + 1) > len(self.tokens):
            self.current_position = 0
        return x, y


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.drop, self.head = nn.Embedding(16, 8), nn.Dropout(0.1), nn.Linear(8, 16)

    def forward(self, x, y):
        return F.cross_entropy(self.head(self.drop(self.embed(x))).view(-1, 16), y.view(-1))

    def configure_optimizers(self, weight_decay, learning_rate):
        decayed = [p for p in self.parameters() if p.dim() >= 2]
        others = [p for p in self.parameters() if p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=learning_rate)


torch.manual_seed(111)
grad_accum_steps, max_steps = 2, 12
train_loader = LightLoader(B=4, T=8)
model = Small()
optimizer = model.configure_optimizers(weight_decay=0.1, learning_rate=1e-2)


def get_lr(it):
    return 1e-2 * (it + 1) / 4 if it < 4 else 1e-2 * 0.9 ** (it - 4)


for step in range(max_steps):
    last_step = step == max_steps - 1
    model.train()
    optimizer.zero_grad()
    loss_accum = 0.0
    for micro_step in range(grad_accum_steps):
        x, y = train_loader.next_batch()
        loss = model(x, y) / grad_accum_steps
        loss_accum += loss.detach()
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    lr = get_lr(step)
    for param_group in optimizer.param_groups:
        param_group["lr"] = lr
    optimizer.step()
    print(f"step {step} | loss {loss_accum.item():.4f} | norm {norm:.3f}")
torch.save(model.state_dict(), "model.pt")
