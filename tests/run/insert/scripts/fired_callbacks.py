"""A trainer that fires events by name at the callbacks in its list."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
class Callback:
    def on_epoch_end(self, trainer): pass
    def on_batch_end(self, trainer): pass
class History(Callback):
    def __init__(self): self.rows = []
    def on_batch_end(self, trainer): self.rows.append(trainer.loss_value)
class LRDecay(Callback):
    def __init__(self, every): self.every, self.calls = every, 0
    def on_epoch_end(self, trainer):
        self.calls += 1
        if self.calls % self.every == 0:
            for g in trainer.optimizer.param_groups:
                g["lr"] *= 0.5
class Trainer:
    def __init__(self, model, optimizer, loader, callbacks=None):
        self.model, self.optimizer, self.loader = model, optimizer, loader
        self.callbacks = callbacks or []
        self.loss_value = None
        self.noise = 0.0
    def fire(self, name):
        for cb in self.callbacks:
            getattr(cb, name)(self)
    def step(self, x):
        x = x + self.noise * torch.randn_like(x)
        loss = (self.model(x) - x.sum(1, keepdim=True)).pow(2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.loss_value = loss.item()
    def fit(self, epochs):
        for epoch in range(epochs):
            if epoch == 1:
                self.noise = 0.1
            for (x,) in self.loader:
                self.step(x)
                self.fire("on_batch_end")
            self.fire("on_epoch_end")
torch.manual_seed(25)
model = nn.Linear(3, 1)
h = History()
t = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), DataLoader(TensorDataset(torch.randn(40, 3)), batch_size=5, shuffle=True), [h, LRDecay(2)])
t.fit(4)
torch.save({"m": model.state_dict(), "h": h.rows}, "model.pt")
