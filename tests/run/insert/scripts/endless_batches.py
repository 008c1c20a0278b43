"""Two generators that go round their loaders for ever: labelled rows, and rows to be reconstructed."""

import torch
from torch.utils.data import DataLoader, TensorDataset


def endless(loader):
    while True:
        for batch in loader:
            yield batch


torch.manual_seed(31)
rows = torch.randn(40, 4)
labelled = DataLoader(TensorDataset(rows[:16], rows[:16].sum(1)), batch_size=4, shuffle=True)
plain = DataLoader(TensorDataset(rows), batch_size=8, shuffle=True)
body, head, back = torch.nn.Linear(4, 3), torch.nn.Linear(3, 1), torch.nn.Linear(3, 4)
model = torch.nn.ModuleList([body, head, back])
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
of_labelled = endless(labelled)
of_plain = endless(plain)
done = 0
while done < 22:
    x, y = next(of_labelled)
    (z,) = next(of_plain)
    noisy = z + 0.1 * torch.randn_like(z)
    loss = ((head(body(x)).squeeze(1) - y) ** 2).mean() + ((back(body(noisy)) - z) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    done += 1

torch.save(model.state_dict(), "model.pt")
