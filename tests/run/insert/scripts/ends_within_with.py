"""Steps that end by continue and a pass that ends by break, both within the block that holds the step."""

import torch

torch.manual_seed(63)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
data = torch.utils.data.DataLoader(torch.randn(40, 3), batch_size=4, shuffle=True)
silent, logged = 0, []
for epoch in range(3):
    for i, x in enumerate(data):
        with torch.autocast("cpu", enabled=False):
            loss = model(x).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if i == 7:
                break
            if i % 3:
                silent += 1
                continue
            logged.append(loss.item())
torch.save({"model": model.state_dict(), "silent": silent, "logged": logged}, "model.pt")
