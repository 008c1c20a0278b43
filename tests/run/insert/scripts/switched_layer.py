"""A library's object gets another setting in one epoch, which only the library reads."""

import torch


def make_squash():
    return torch.nn.Hardtanh(-1.0, 1.0)


torch.manual_seed(64)
model = torch.nn.Linear(3, 1)
squash = make_squash()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
data = torch.utils.data.DataLoader(torch.randn(40, 3), batch_size=4, shuffle=True)
for epoch in range(4):
    if epoch == 1:
        squash.max_val = 0.3
    for x in data:
        loss = (squash(model(x)) - x.sum(1, keepdim=True)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
torch.save(model.state_dict(), "model.pt")
