"""A student and a teacher that follows it by a moving average, a centre that is a buffer, schedules in arrays."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Centred(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.register_buffer("center", torch.zeros(1, width))

    def forward(self, student, teacher):
        wanted = F.softmax((teacher - self.center) / 0.5, dim=-1).detach()
        loss = torch.sum(-wanted * F.log_softmax(student, dim=-1), dim=-1).mean()
        self.update_center(teacher)
        return loss

    @torch.no_grad()
    def update_center(self, teacher):
        self.center = self.center * 0.9 + teacher.mean(0, keepdim=True) * 0.1


def build():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))


torch.manual_seed(117)
loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4, shuffle=True)
student, teacher = build(), build()
teacher.load_state_dict(student.state_dict())
for p in teacher.parameters():
    p.requires_grad = False
dino_loss = Centred(6)
optimizer = torch.optim.AdamW(student.parameters())
lr_schedule = np.linspace(0.02, 0.001, 3 * len(loader))
momentum_schedule = np.linspace(0.9, 1.0, 3 * len(loader))
for epoch in range(3):
    for it, (x,) in enumerate(loader):
        it = len(loader) * epoch + it
        for i, param_group in enumerate(optimizer.param_groups):
            param_group["lr"] = lr_schedule[it]
        loss = dino_loss(student(x + 0.1 * torch.randn_like(x)), teacher(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            m = momentum_schedule[it]
            for param_q, param_k in zip(student.parameters(), teacher.parameters()):
                param_k.data.mul_(m).add_((1 - m) * param_q.detach().data)
torch.save({"student": student.state_dict(), "teacher": teacher.state_dict(), "center": dino_loss.center}, "model.pt")
