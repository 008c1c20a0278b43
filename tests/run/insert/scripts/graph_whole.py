"""A graph in one batch: each epoch is one step, and the test score is that of the best epoch on validation rows."""

import torch
import torch.nn.functional as F

torch.manual_seed(108)
x, y = torch.randn(20, 6), torch.randint(0, 3, (20,))
links = (torch.rand(20, 20) < 0.2).float()
train_mask, val_mask, test_mask = torch.arange(20) < 8, (torch.arange(20) >= 8) & (torch.arange(20) < 14), torch.arange(20) >= 14


class Graph(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)

    def forward(self, x, links):
        x = F.dropout(x, p=0.5, training=self.training)
        x = F.relu(self.one(links @ x))
        x = F.dropout(x, p=0.5, training=self.training)
        return self.two(links @ x)


model = Graph()
optimizer = torch.optim.Adam(
    [dict(params=model.one.parameters(), weight_decay=5e-4), dict(params=model.two.parameters(), weight_decay=0)], lr=0.05
)


def train():
    model.train()
    optimizer.zero_grad()
    out = model(x, links)
    loss = F.cross_entropy(out[train_mask], y[train_mask])
    loss.backward()
    optimizer.step()
    return float(loss)


@torch.no_grad()
def test():
    model.eval()
    found = model(x, links).argmax(dim=-1)
    return [int((found[mask] == y[mask]).sum()) / int(mask.sum()) for mask in (train_mask, val_mask, test_mask)]


best_val_acc = test_acc = 0
for epoch in range(1, 21):
    loss = train()
    train_acc, val_acc, tmp_test_acc = test()
    if val_acc > best_val_acc:
        best_val_acc = val_acc
        test_acc = tmp_test_acc
    print(f"{epoch:02d} {loss:.4f} {train_acc:.2f} {val_acc:.2f} {test_acc:.2f}")
torch.save({"model": model.state_dict(), "test": test_acc}, "model.pt")
