"""A critic that learns at each batch, and a maker that learns at each third one."""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--n_critic", type=int, default=3)
opt = parser.parse_args()

torch.manual_seed(105)
maker = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 2))
critic = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
optimizer_M = torch.optim.RMSprop(maker.parameters(), lr=0.01)
optimizer_C = torch.optim.RMSprop(critic.parameters(), lr=0.01)
dataloader = DataLoader(TensorDataset(torch.randn(56, 2)), batch_size=8, shuffle=True)

batches_done = 0
for epoch in range(3):
    for i, (real,) in enumerate(dataloader):
        optimizer_C.zero_grad()
        noise = torch.randn(real.size(0), 3)
        fake = maker(noise).detach()
        loss_C = -critic(real).mean() + critic(fake).mean()
        loss_C.backward()
        optimizer_C.step()
        for parameter in critic.parameters():
            parameter.data.clamp_(-0.1, 0.1)
        if i % opt.n_critic == 0:
            optimizer_M.zero_grad()
            loss_M = -critic(maker(noise)).mean()
            loss_M.backward()
            optimizer_M.step()
            print(f"[{epoch}/{i}] {loss_C.item():.4f} {loss_M.item():.4f}")
        batches_done += 1
torch.save({"maker": maker.state_dict(), "critic": critic.state_dict()}, "model.pt")
