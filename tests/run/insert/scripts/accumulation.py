"""Four batches make a step; a progress bar, a running loss, a linear warm-up."""

import torch
from torch.optim import AdamW
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

ACCUMULATE = 4


class Noisy(Dataset):
    """Rows that are disturbed anew each time they are fetched."""

    def __init__(self, count):
        self.rows = torch.randn(count, 8, generator=torch.Generator().manual_seed(3))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index] + 0.1 * torch.randn(8)


torch.manual_seed(4)
loader = DataLoader(Noisy(64), batch_size=4, shuffle=True)
model = torch.nn.Linear(8, 8)
decay = [p for n, p in model.named_parameters() if "bias" not in n]
rest = [p for n, p in model.named_parameters() if "bias" in n]
groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
optimizer = AdamW(groups, lr=1e-2)
scheduler = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=12)

for epoch in range(3):
    running = 0.0
    for i, batch in enumerate(tqdm(loader, disable=True)):
        loss = ((model(batch) - batch) ** 2).mean() / ACCUMULATE
        loss.backward()
        running += loss.item()
        if (i + 1) % ACCUMULATE == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    print(f"epoch {epoch}: {running:.4f}")

torch.save(model.state_dict(), "model.pt")
