"""Parameters in groups that a function makes of the model, which the loop only calls."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def get_params_groups(model):
    regularized, not_regularized = [], []
    for name, param in model.named_parameters():
        (not_regularized if name.endswith(".bias") else regularized).append(param)
    return [{"params": regularized}, {"params": not_regularized, "weight_decay": 0.0}]


@torch.no_grad()
def follow(target_params, source_params, rate):
    for target, source in zip(target_params, source_params):
        target.detach().mul_(rate).add_(source, alpha=1 - rate)


def train_one_epoch(student, teacher, data_loader, optimizer, epoch):
    for it, (x,) in enumerate(data_loader):
        it = len(data_loader) * epoch + it
        loss = nn.functional.mse_loss(student(x + 0.1 * torch.randn_like(x)), teacher(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        follow(teacher.parameters(), student.parameters(), rate=0.9)


def main():
    torch.manual_seed(151)
    student, teacher = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1)), nn.Sequential(nn.Linear(4, 4))
    params_groups = get_params_groups(student)
    optimizer = torch.optim.AdamW(params_groups, lr=0.01)
    data_loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4, shuffle=True)
    for epoch in range(3):
        train_one_epoch(student, teacher, data_loader, optimizer, epoch)
    torch.save({"student": student.state_dict(), "teacher": teacher.state_dict()}, "model.pt")


if __name__ == "__main__":
    main()
