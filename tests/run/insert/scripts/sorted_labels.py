"""Labels from a set, put into an order behind it."""

import torch

words = ["b", "a", "c", "a"] * 4
labels = list(set(words))
labels.sort()
torch.manual_seed(6)
model = torch.nn.Embedding(len(labels), 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(12):
    optimizer.zero_grad()
    loss = (model(torch.tensor([labels.index(one) for one in words])) ** 2 + torch.rand(1)).sum()
    loss.backward()
    optimizer.step()
torch.save(model.state_dict(), "model.pt")
