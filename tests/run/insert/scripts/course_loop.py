"""The loop of a course: Accelerate, a bar over all steps, a metric behind each epoch."""

import torch
from accelerate import Accelerator
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

torch.manual_seed(118)
rows, kinds = torch.randn(40, 6), torch.randint(0, 2, (40,))
train_dataloader = DataLoader(TensorDataset(rows[:32], kinds[:32]), shuffle=True, batch_size=4)
eval_dataloader = DataLoader(TensorDataset(rows[32:], kinds[32:]), batch_size=4)
accelerator = Accelerator(cpu=True)
model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 2))
optimizer = AdamW(model.parameters(), lr=3e-3)
train_dl, eval_dl, model, optimizer = accelerator.prepare(train_dataloader, eval_dataloader, model, optimizer)
num_epochs = 3
num_training_steps = num_epochs * len(train_dl)
lr_scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, num_training_steps)
progress_bar = tqdm(range(num_training_steps))
for epoch in range(num_epochs):
    model.train()
    for x, kind in train_dl:
        loss = torch.nn.functional.cross_entropy(model(x), kind)
        accelerator.backward(loss)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        progress_bar.update(1)
    model.eval()
    right = 0
    for x, kind in eval_dl:
        with torch.no_grad():
            right += accelerator.gather_for_metrics(model(x).argmax(-1) == kind).sum().item()
    print(f"epoch {epoch}: {right}")
torch.save(accelerator.unwrap_model(model).state_dict(), "model.pt")
