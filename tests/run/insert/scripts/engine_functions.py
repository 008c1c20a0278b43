"""A function for an epoch with a logger of meters that goes through the loader, and a warm-up in the first epoch."""

import datetime
import time
from collections import defaultdict, deque

import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset


class Smoothed:
    def __init__(self, window=20):
        self.deque, self.total, self.count = deque(maxlen=window), 0.0, 0

    def update(self, value):
        self.deque.append(value)
        self.count += 1
        self.total += value


class MetricLogger:
    def __init__(self):
        self.meters = defaultdict(Smoothed)

    def update(self, **values):
        for name, value in values.items():
            self.meters[name].update(value.item() if isinstance(value, torch.Tensor) else value)

    def log_every(self, iterable, print_freq, header):
        i, start = 0, time.time()
        for obj in iterable:
            yield obj
            if i % print_freq == 0:
                print(header, i, len(iterable), {name: meter.total for name, meter in self.meters.items()})
            i += 1
        print(header, datetime.timedelta(seconds=int(time.time() - start)))


def train_one_epoch(model, criterion, optimizer, data_loader, epoch, print_freq=3, scaler=None):
    model.train()
    metric_logger = MetricLogger()
    header = f"Epoch: [{epoch}]"
    lr_scheduler = None
    if epoch == 0:
        lr_scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=4)
    for image, target in metric_logger.log_every(data_loader, print_freq, header):
        output = model(image)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if lr_scheduler is not None:
            lr_scheduler.step()
        metric_logger.update(loss=loss, lr=optimizer.param_groups[0]["lr"])


def main():
    torch.manual_seed(114)
    dataset = TensorDataset(torch.randn(32, 5), torch.randint(0, 2, (32,)))
    data_loader = DataLoader(dataset, batch_size=4, sampler=RandomSampler(dataset))
    model = nn.Linear(5, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    main_scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    for epoch in range(3):
        train_one_epoch(model, nn.CrossEntropyLoss(), optimizer, data_loader, epoch)
        main_scheduler.step()
    torch.save(model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
