"""Goes through a generator that goes round the data by itself, and draws an order in each round."""

import torch


def rounds(rows):
    while True:
        for chosen in torch.randperm(len(rows)).split(4):
            yield rows[chosen]


torch.manual_seed(12)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step, batch in enumerate(rounds(torch.randn(32, 4))):
    optimizer.zero_grad()
    loss = ((model(batch) - batch) ** 2).mean()
    loss.backward()
    optimizer.step()
    if step == 19:
        break

torch.save(model.state_dict(), "model.pt")
