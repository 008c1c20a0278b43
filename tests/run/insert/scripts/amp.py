"""Mixed precision with a gradient scaler, an average of the weights, and a cosine schedule."""

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset


def build(width):
    model = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, width))
    return model, torch.optim.AdamW(model.parameters(), lr=3e-3)


def run(epochs=2, width=8):
    torch.manual_seed(5)
    rows = torch.randn(48, width)
    loader = DataLoader(TensorDataset(rows), batch_size=8, shuffle=True)
    model, optimizer = build(width)
    scheduler = CosineAnnealingLR(optimizer, T_max=epochs * len(loader))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    best = float("inf")
    for epoch in range(epochs):
        model.train()
        for (batch,) in loader:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.mse_loss(model(batch), batch)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            ema.update_parameters(model)
        if loss.item() < best:
            best = loss.item()
    return model, ema


if __name__ == "__main__":
    model, ema = run()
    torch.save({"model": model.state_dict(), "ema": ema.state_dict()}, "model.pt")
