"""Runs its loop again with smaller batches where memory doesn't suffice."""

import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size, set_seed
from torch.utils.data import DataLoader, TensorDataset


def training_function():
    accelerator = Accelerator(cpu=True)

    @find_executable_batch_size(starting_batch_size=16)
    def inner_training_loop(batch_size):
        nonlocal accelerator
        accelerator.free_memory()
        set_seed(123)
        model = torch.nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        loader = DataLoader(TensorDataset(torch.randn(64, 4)), shuffle=True, batch_size=batch_size)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        for epoch in range(3):
            for (x,) in loader:
                accelerator.backward(((model(x) - x) ** 2).mean())
                optimizer.step()
                optimizer.zero_grad()
        torch.save(accelerator.unwrap_model(model).state_dict(), "model.pt")

    inner_training_loop()


if __name__ == "__main__":
    training_function()
