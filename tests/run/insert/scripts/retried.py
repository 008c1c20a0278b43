"""Trains in a function that is called again, with less memory, where the first try ends with an error."""

import argparse

import torch
from torch.utils.data import DataLoader, TensorDataset


def get_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--load", type=str, default=False)
    return parser.parse_args()


def train_model(model, device, epochs=5, batch_size=4, learning_rate=1e-2, save_checkpoint=True):
    rows = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    train_loader = DataLoader(TensorDataset(rows), shuffle=True, batch_size=batch_size)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=learning_rate, weight_decay=1e-8, momentum=0.9, foreach=True)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min", patience=0)
    global_step = 0
    for epoch in range(1, epochs + 1):
        model.train()
        epoch_loss = 0
        for (x,) in train_loader:
            loss = ((model(x.to(device)) - x) ** 2).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            global_step += 1
            epoch_loss += loss.item()
        scheduler.step(epoch_loss)
        if save_checkpoint:
            torch.save(model.state_dict(), f"checkpoint_epoch{epoch}.pth")


if __name__ == "__main__":
    args = get_args()
    torch.manual_seed(149)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 4))
    if args.load:
        model.load_state_dict(torch.load(args.load))
    try:
        train_model(model=model, device="cpu", epochs=args.epochs)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        train_model(model=model, device="cpu", epochs=args.epochs, batch_size=2)
    torch.save(model.state_dict(), "model.pt")
