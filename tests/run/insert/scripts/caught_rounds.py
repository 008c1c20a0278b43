"""Rounds that end early in the statement of the step: by an error that is caught, in a branch, on one line."""

import torch


def loss_of(model, step):
    x = torch.randn(8, 3)
    if step % 6 == 3:
        raise RuntimeError("no memory")
    return (model(x) - x.sum(1, keepdim=True) / (step % 6 != 5)).abs().mean()


torch.manual_seed(62)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
caught = skipped = bad = 0
for step in range(30):
    for group in optimizer.param_groups:
        group["lr"] = 0.1 / (1 + step)
    if step % 10 == 7: skipped += 1; continue  # fmt: skip
    try:
        loss = loss_of(model, step)
        optimizer.zero_grad()
        if torch.isfinite(loss):
            loss.backward()
            optimizer.step()
        else:
            bad += 1
            continue
    except RuntimeError:
        caught += 1
        continue
    if step % 5 == 0:
        print(f"step {step}: loss {loss.item():.3f}")
torch.save({"model": model.state_dict(), "counts": (caught, skipped, bad)}, "model.pt")
