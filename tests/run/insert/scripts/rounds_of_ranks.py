"""Ranks that train by themselves and meet every fourth batch, with accumulation, in epochs."""

import torch
from accelerate import Accelerator
from accelerate.local_sgd import LocalSGD
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset


def training_function():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    set_seed(121)
    rows = torch.randn(56, 4)
    train_dataloader = DataLoader(TensorDataset(rows), shuffle=True, batch_size=4)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    lr_scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 20)
    model, optimizer, train_dataloader, lr_scheduler = accelerator.prepare(model, optimizer, train_dataloader, lr_scheduler)
    for epoch in range(2):
        model.train()
        with LocalSGD(accelerator=accelerator, model=model, local_sgd_steps=4, enabled=True) as local_sgd:
            for step, (batch,) in enumerate(train_dataloader):
                with accelerator.accumulate(model):
                    loss = ((model(batch) - batch) ** 2).mean()
                    accelerator.backward(loss)
                    optimizer.step()
                    lr_scheduler.step()
                    optimizer.zero_grad()
                    local_sgd.step()
        accelerator.print(f"epoch {epoch}: {loss.item():.4f}")
    accelerator.wait_for_everyone()
    torch.save(accelerator.unwrap_model(model).state_dict(), "model.pt")


if __name__ == "__main__":
    training_function()
