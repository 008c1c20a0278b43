"""Two domains side by side: batches of two loaders, zipped in each epoch; lambda by how far the training is."""

import itertools

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(132)
source = DataLoader(TensorDataset(torch.randn(32, 4), torch.randint(0, 2, (32,))), batch_size=4, shuffle=True)
target = DataLoader(TensorDataset(torch.randn(24, 4) + 1), batch_size=4, shuffle=True)
features, label, domain = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 2)
optimizer = torch.optim.Adam(itertools.chain(features.parameters(), label.parameters(), domain.parameters()), lr=0.01)
criterion = nn.CrossEntropyLoss()
for epoch in range(3):
    len_dataloader = min(len(source), len(target))
    for i, ((x_s, y_s), (x_t,)) in enumerate(zip(source, target)):
        p = float(i + epoch * len_dataloader) / 3 / len_dataloader
        alpha = 2.0 / (1.0 + np.exp(-10 * p)) - 1
        optimizer.zero_grad()
        found_s, found_t = features(x_s), features(x_t)
        loss = criterion(label(found_s), y_s)
        kinds = torch.cat([torch.zeros(len(x_s)), torch.ones(len(x_t))]).long()
        loss = loss + alpha * criterion(domain(torch.cat([found_s, found_t])), kinds)
        loss.backward()
        optimizer.step()
torch.save({"f": features.state_dict(), "l": label.state_dict(), "d": domain.state_dict()}, "model.pt")
