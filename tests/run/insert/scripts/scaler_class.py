"""A class of the script's own around a gradient scaler, which steps the optimizer; a teacher that follows the student."""

import math

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class NativeScaler:
    state_dict_key = "amp_scaler"

    def __init__(self):
        self._scaler = torch.amp.GradScaler("cpu", enabled=False)

    def __call__(self, loss, optimizer, clip_grad=None, parameters=None, update_grad=True):
        self._scaler.scale(loss).backward()
        if update_grad:
            if clip_grad is not None:
                self._scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(parameters, clip_grad)
            self._scaler.step(optimizer)
            self._scaler.update()

    def state_dict(self):
        return self._scaler.state_dict()

    def load_state_dict(self, state_dict):
        self._scaler.load_state_dict(state_dict)


def main():
    torch.manual_seed(116)
    data_loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4, shuffle=True)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loss_scaler = NativeScaler()
    accum_iter = 2
    for epoch in range(3):
        model.train(True)
        optimizer.zero_grad()
        for data_iter_step, (samples,) in enumerate(data_loader):
            if data_iter_step % accum_iter == 0:
                for group in optimizer.param_groups:
                    group["lr"] = 0.01 * 0.5 * (1.0 + math.cos(math.pi * (data_iter_step / 8 + epoch) / 3))
            loss = ((model(samples) - samples) ** 2).mean() / accum_iter
            loss_scaler(
                loss, optimizer, parameters=model.parameters(), update_grad=(data_iter_step + 1) % accum_iter == 0
            )
            if (data_iter_step + 1) % accum_iter == 0:
                optimizer.zero_grad()
    torch.save(model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
