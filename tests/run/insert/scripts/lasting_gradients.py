"""Never sets its gradients to zero, but halves them."""

import torch

torch.manual_seed(12)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(20):
    x = torch.randn(8, 4)
    loss = ((model(x) - x) ** 2).mean()
    loss.backward()
    optimizer.step()
    for weight in model.parameters():
        weight.grad.mul_(0.5)

torch.save(model.state_dict(), "model.pt")
