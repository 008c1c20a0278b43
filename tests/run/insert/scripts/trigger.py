"""Stops early by Accelerate's trigger, with a class of its own that counts."""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset


class EarlyStopper:
    def __init__(self, threshold, patience):
        self.threshold, self.patience, self.count, self.lowest = threshold, patience, 0, float("inf")

    def check_early_stopping(self, loss):
        if self.lowest - loss > self.threshold:
            self.lowest, self.count = loss, 0
        elif self.count >= self.patience:
            return True
        else:
            self.count += 1
        return False


def main():
    accelerator = Accelerator(cpu=True)
    set_seed(124)
    callback = EarlyStopper(0.05, 6)
    loader = DataLoader(TensorDataset(torch.randn(64, 4)), shuffle=True, batch_size=4)
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for epoch in range(3):
        model.train()
        for step, (x,) in enumerate(loader):
            loss = ((model(x) - x) ** 2).mean()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            if callback.check_early_stopping(loss.item()):
                accelerator.set_trigger()
            if accelerator.check_trigger():
                break
        if callback.count >= callback.patience:
            print("stopped early")
            break
    torch.save(accelerator.unwrap_model(model).state_dict(), "model.pt")


if __name__ == "__main__":
    main()
