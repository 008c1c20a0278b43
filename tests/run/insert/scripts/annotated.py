"""Says the types of its variables, the model among them, and stops by an object that has one."""

import torch
from torch.utils.data import DataLoader, TensorDataset


class Patience:
    def __init__(self, rounds: int) -> None:
        self.rounds: int = rounds
        self.best: float = float("inf")

    def spent(self, loss: float) -> bool:
        if loss < self.best - 0.01:
            self.best = loss
        else:
            self.rounds -= 1
        return self.rounds <= 0


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(4, 4)
        self.calls: int = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.body(x) * (1 + 0.01 * self.calls)


torch.manual_seed(17)
model: Net = Net()
optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
loader: DataLoader = DataLoader(TensorDataset(torch.randn(24, 4)), batch_size=4, shuffle=True)
losses: list[float] = []
patience: Patience = Patience(6)
for epoch in range(20):
    for (x,) in loader:
        loss = ((model(x) - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if patience.spent(sum(losses[-6:]) / 6):
        break
torch.save({"model": model.state_dict(), "losses": losses}, "model.pt")
