"""An optimizer of the script's own, with modes for training and evaluation, as schedule-free ones have them."""

import torch
from torch.utils.data import DataLoader, TensorDataset


class Free(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta, "k": 0, "train_mode": True})

    @torch.no_grad()
    def _turn(self, training):
        for group in self.param_groups:
            if group["train_mode"] is not training:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        weight = 1 - group["beta"] if training else 1 - 1 / group["beta"]
                        p.lerp_(self.state[p]["z"], weight)
                group["train_mode"] = training

    def train(self):
        self._turn(True)

    def eval(self):
        self._turn(False)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                state = self.state[p]
                if "z" not in state:
                    state["z"] = p.clone()
                p.lerp_(state["z"], 1 / (group["k"] + 1))
                p.add_(p.grad, alpha=-group["lr"] * 0.1)
                state["z"].sub_(p.grad, alpha=group["lr"])


torch.manual_seed(147)
loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4, shuffle=True)
model = torch.nn.Linear(4, 4)
optimizer = Free(model.parameters())
for epoch in range(3):
    model.train()
    optimizer.train()
    for (x,) in loader:
        loss = ((model(x) - x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    optimizer.eval()
    with torch.no_grad():
        print(epoch, ((model(torch.ones(1, 4)) - 1) ** 2).mean().item())
torch.save(model.state_dict(), "model.pt")
