"""Goes through its rows in an order of its own, a slice at a time."""

import numpy as np
import torch

np.random.seed(133)
torch.manual_seed(133)
X, Y = torch.randn(40, 4), torch.randn(40, 1)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
loss_fn = torch.nn.MSELoss()
batch_size, n_epochs = 8, 4
history = []
for epoch in range(n_epochs):
    order = np.random.permutation(len(X))
    for start in range(0, len(X), batch_size):
        picked = order[start : start + batch_size]
        loss = loss_fn(model(X[picked]), Y[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        history.append(float(loss_fn(model(X), Y)))
torch.save({"model": model.state_dict(), "history": history}, "model.pt")
