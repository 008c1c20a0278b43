"""Phases of an epoch, and the best weights in a folder that is there only while it trains."""

import os
import time
from tempfile import TemporaryDirectory

import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(137)
rows, kinds = torch.randn(44, 5), torch.randint(0, 2, (44,))
parts = {"train": TensorDataset(rows[:32], kinds[:32]), "val": TensorDataset(rows[32:], kinds[32:])}
dataloaders = {name: DataLoader(part, batch_size=4, shuffle=True) for name, part in parts.items()}
dataset_sizes = {name: len(part) for name, part in parts.items()}


def train_model(model, criterion, optimizer, scheduler, num_epochs=25):
    since = time.time()
    with TemporaryDirectory() as tempdir:
        best_model_params_path = os.path.join(tempdir, "best_model_params.pt")
        torch.save(model.state_dict(), best_model_params_path)
        best_acc = 0.0
        for epoch in range(num_epochs):
            for phase in ["train", "val"]:
                if phase == "train":
                    model.train()
                else:
                    model.eval()
                running_loss = 0.0
                running_corrects = 0
                for inputs, labels in dataloaders[phase]:
                    optimizer.zero_grad()
                    with torch.set_grad_enabled(phase == "train"):
                        outputs = model(inputs)
                        _, preds = torch.max(outputs, 1)
                        loss = criterion(outputs, labels)
                        if phase == "train":
                            loss.backward()
                            optimizer.step()
                    running_loss += loss.item() * inputs.size(0)
                    running_corrects += torch.sum(preds == labels.data)
                if phase == "train":
                    scheduler.step()
                epoch_acc = running_corrects.double() / dataset_sizes[phase]
                if phase == "val" and epoch_acc > best_acc:
                    best_acc = epoch_acc
                    torch.save(model.state_dict(), best_model_params_path)
        print(f"{time.time() - since:.0f}s, best {best_acc:.4f}")
        model.load_state_dict(torch.load(best_model_params_path, weights_only=True))
    return model


net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
optimizer_ft = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
exp_lr_scheduler = optim.lr_scheduler.StepLR(optimizer_ft, step_size=2, gamma=0.1)
net = train_model(net, nn.CrossEntropyLoss(), optimizer_ft, exp_lr_scheduler, num_epochs=4)
torch.save(net.state_dict(), "model.pt")
