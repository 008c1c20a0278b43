"""A warm-up by batches in the first epoch, and a schedule that is told the number of each later one ahead of it."""

import torch
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR
from torch.utils.data import DataLoader, TensorDataset


class WarmUp(LRScheduler):
    def __init__(self, optimizer, total_iters, last_epoch=-1):
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return [base_lr * self.last_epoch / (self.total_iters + 1e-8) for base_lr in self.base_lrs]


def train(epoch):
    net.train()
    for batch_index, (rows, kinds) in enumerate(training_loader):
        optimizer.zero_grad()
        loss = loss_function(net(rows), kinds)
        loss.backward()
        optimizer.step()
        n_iter = (epoch - 1) * len(training_loader) + batch_index + 1
        print(n_iter, loss.item(), optimizer.param_groups[0]["lr"])
        if epoch <= 1:
            warmup_scheduler.step()


if __name__ == "__main__":
    torch.manual_seed(150)
    training_loader = DataLoader(TensorDataset(torch.randn(32, 5), torch.randint(0, 3, (32,))), batch_size=4, shuffle=True)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    loss_function = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    train_scheduler = MultiStepLR(optimizer, milestones=[2, 3], gamma=0.2)
    warmup_scheduler = WarmUp(optimizer, len(training_loader))
    for epoch in range(1, 5):
        if epoch > 1:
            train_scheduler.step(epoch)
        train(epoch)
    torch.save(net.state_dict(), "model.pt")
