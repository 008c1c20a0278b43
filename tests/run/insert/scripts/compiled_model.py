"""A class with compile() and fit(), as other libraries have it, in one script."""

import torch
from torch.utils.data import DataLoader, TensorDataset


class Sequential(torch.nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = torch.nn.Sequential(*layers)
        self.history = {"loss": []}

    def forward(self, x):
        return self.layers(x)

    def compile(self, lr):
        self.optimizer = torch.optim.Adam(self.layers.parameters(), lr=lr)
        self.loss = torch.nn.MSELoss()

    def fit(self, loader, epochs):
        for epoch in range(epochs):
            total = 0.0
            for x, y in loader:
                total += self.train_step(x, y)
            self.history["loss"].append(total / len(loader))
        return self.history

    def train_step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss(self(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()


torch.manual_seed(144)
x = torch.randn(32, 3)
net = Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
net.compile(lr=0.02)
history = net.fit(DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=True), epochs=3)
torch.save({"net": net.state_dict(), "loss": history["loss"]}, "model.pt")
