"""A bar in a with block around each pass, which the batches come from."""

import torch
from torch.utils.data import DataLoader, TensorDataset, random_split
from tqdm import tqdm

torch.manual_seed(130)
rows = TensorDataset(torch.randn(40, 4))
train_set, val_set = random_split(rows, [32, 8], generator=torch.Generator().manual_seed(0))
train_loader = DataLoader(train_set, shuffle=True, batch_size=4)
val_loader = DataLoader(val_set, batch_size=4)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4))
optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01, momentum=0.9)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", patience=1)
grad_scaler = torch.amp.GradScaler("cpu", enabled=False)
global_step = 0
for epoch in range(1, 4):
    model.train()
    epoch_loss = 0
    with tqdm(total=32, desc=f"Epoch {epoch}/3", unit="row") as pbar:
        for batch in train_loader:
            images = batch[0]
            with torch.autocast("cpu", enabled=False):
                loss = ((model(images) - images) ** 2).mean()
            optimizer.zero_grad(set_to_none=True)
            grad_scaler.scale(loss).backward()
            grad_scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            grad_scaler.step(optimizer)
            grad_scaler.update()
            pbar.update(images.shape[0])
            global_step += 1
            epoch_loss += loss.item()
            pbar.set_postfix(**{"loss (batch)": loss.item()})
            division_step = 4
            if division_step > 0:
                if global_step % division_step == 0:
                    model.eval()
                    with torch.no_grad():
                        val_score = -sum(((model(x) - x) ** 2).mean() for (x,) in val_loader)
                    model.train()
                    scheduler.step(val_score)
torch.save(model.state_dict(), "model.pt")
