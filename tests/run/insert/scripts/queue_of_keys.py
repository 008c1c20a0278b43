"""A queue of keys in buffers, a key network that follows by momentum, rates by a function of the epoch."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Contrast(nn.Module):
    def __init__(self, dim=4, size=16):
        super().__init__()
        self.encoder_q, self.encoder_k = nn.Linear(6, dim), nn.Linear(6, dim)
        for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
            k.data.copy_(q.data)
            k.requires_grad = False
        self.register_buffer("queue", F.normalize(torch.randn(dim, size), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def _follow(self, keys):
        for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
            k.data = k.data * 0.9 + q.data * 0.1
        at = int(self.queue_ptr)
        self.queue[:, at : at + keys.size(0)] = keys.T
        self.queue_ptr[0] = (at + keys.size(0)) % self.queue.size(1)

    def forward(self, x_q, x_k):
        q = F.normalize(self.encoder_q(x_q), dim=1)
        with torch.no_grad():
            k = F.normalize(self.encoder_k(x_k), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.clone().detach()], dim=1) / 0.2
        self._follow(k)
        return logits, torch.zeros(logits.size(0), dtype=torch.long)


def adjust_learning_rate(optimizer, epoch):
    lr = 0.05 * (0.1 if epoch >= 2 else 1.0)
    for param_group in optimizer.param_groups:
        param_group["lr"] = lr


torch.manual_seed(129)
loader = DataLoader(TensorDataset(torch.randn(32, 6)), batch_size=4, shuffle=True, drop_last=True)
model = Contrast()
optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
for epoch in range(3):
    adjust_learning_rate(optimizer, epoch)
    for (x,) in loader:
        output, target = model(x + 0.1 * torch.randn_like(x), x + 0.1 * torch.randn_like(x))
        loss = F.cross_entropy(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
torch.save(model.state_dict(), "model.pt")
