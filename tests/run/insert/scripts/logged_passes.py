"""A function for an epoch whose loader goes through a meter's generator that gives its batches once."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Logger:
    def __init__(self):
        self.sums = {}

    def update(self, **values):
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def log_every(self, iterable, freq, header=None):
        i = 0
        for obj in iterable:
            yield obj
            if i % freq == 0:
                print(header, i, len(iterable), self.sums)
            i += 1


def train_one_epoch(model, data_loader, optimizer, epoch):
    model.train()
    logger = Logger()
    for image, target in logger.log_every(data_loader, 4, f"epoch {epoch}"):
        loss = nn.functional.cross_entropy(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        logger.update(loss=loss, lr=optimizer.param_groups[0]["lr"])
    return {name: total / len(data_loader) for name, total in logger.sums.items()}


def main():
    torch.manual_seed(115)
    data_loader = DataLoader(TensorDataset(torch.randn(32, 5), torch.randint(0, 2, (32,))), batch_size=4, shuffle=True)
    model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.2), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(3):
        stats = train_one_epoch(model, data_loader, optimizer, epoch)
        print(stats)
    torch.save(model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
