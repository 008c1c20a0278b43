"""A recurrent model of words: plain descent unless an optimizer is asked for, a rate that falls, the best weights in a file."""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--adam", action="store_true")
parser.add_argument("--plain", action="store_true", help="without a memory")
parser.add_argument("--save", default="best.pt")
parser.add_argument("--rate", type=float, default=0.5)
args = parser.parse_args()

torch.manual_seed(101)
text = torch.randint(0, 12, (4, 41))
held_out = torch.randint(0, 12, (4, 21))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.drop = nn.Dropout(0.1)
        self.cell = nn.GRU(8, 8, batch_first=True)
        self.out = nn.Linear(8, 12)

    def forward(self, rows, memory):
        found, memory = self.cell(self.drop(self.embed(rows)), memory)
        return self.out(found), memory


model = Words()
criterion = nn.CrossEntropyLoss()
if args.adam:
    optimizer = torch.optim.Adam(model.parameters(), lr=args.rate)


def piece(source, at):
    width = min(5, source.size(1) - 1 - at)
    return source[:, at : at + width], source[:, at + 1 : at + 1 + width].reshape(-1)


def detached(memory):
    """The same memory, whose history is forgotten."""
    if isinstance(memory, torch.Tensor):
        return memory.detach()
    return tuple(detached(one) for one in memory)


def evaluate(source):
    model.eval()
    total, memory = 0.0, torch.zeros(1, 4, 8)
    with torch.no_grad():
        for at in range(0, source.size(1) - 1, 5):
            rows, targets = piece(source, at)
            found, memory = model(rows, memory)
            total += criterion(found.reshape(-1, 12), targets).item()
    return total


def train():
    model.train()
    total = 0.0
    if not args.plain:
        memory = torch.zeros(1, 4, 8)
    for batch, at in enumerate(range(0, text.size(1) - 1, 5)):
        rows, targets = piece(text, at)
        if args.adam:
            optimizer.zero_grad()
        else:
            model.zero_grad()
        if args.plain:
            found, _ = model(rows, torch.zeros(1, 4, 8))
        else:
            memory = detached(memory)
            found, memory = model(rows, memory)
        loss = criterion(found.reshape(-1, 12), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        if args.adam:
            optimizer.step()
        else:
            for parameter in model.parameters():
                parameter.data.add_(parameter.grad, alpha=-rate)
        total += loss.item()
        if batch % 4 == 0 and batch > 0:
            print(f"epoch {epoch}, batch {batch}: {total / 4:.3f}")
            total = 0.0


rate = args.rate
best = None
try:
    for epoch in range(1, 4):
        train()
        score = evaluate(held_out)
        if best is None or score < best:
            with open(args.save, "wb") as file:
                torch.save(model.state_dict(), file)
            best = score
        else:
            rate /= 4.0
except KeyboardInterrupt:
    print("stopped")

with open(args.save, "rb") as file:
    model.load_state_dict(torch.load(file))
torch.save(model.state_dict(), "model.pt")
