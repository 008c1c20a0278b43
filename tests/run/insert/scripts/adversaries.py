"""Two networks against each other, with a fixed noise to look at and lists of both losses."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(106)
loader = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=8, shuffle=True, num_workers=0)


def start_weights(layer):
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, 0.0, 0.02)


netG = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
netG.apply(start_weights)
netD = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1), nn.Sigmoid())
netD.apply(start_weights)
criterion = nn.BCELoss()
fixed_noise = torch.randn(4, 3)
optimizerD = torch.optim.Adam(netD.parameters(), lr=0.01, betas=(0.5, 0.999))
optimizerG = torch.optim.Adam(netG.parameters(), lr=0.01, betas=(0.5, 0.999))
shown, losses_g, losses_d, iters = [], [], [], 0
for epoch in range(3):
    for i, data in enumerate(loader, 0):
        netD.zero_grad()
        real = data[0]
        label = torch.full((real.size(0),), 1.0)
        output = netD(real).view(-1)
        errD_real = criterion(output, label)
        errD_real.backward()
        fake = netG(torch.randn(real.size(0), 3))
        label.fill_(0.0)
        errD_fake = criterion(netD(fake.detach()).view(-1), label)
        errD_fake.backward()
        errD = errD_real + errD_fake
        optimizerD.step()
        netG.zero_grad()
        label.fill_(1.0)
        errG = criterion(netD(fake).view(-1), label)
        errG.backward()
        optimizerG.step()
        losses_g.append(errG.item())
        losses_d.append(errD.item())
        if iters % 4 == 0 or (epoch == 2 and i == len(loader) - 1):
            with torch.no_grad():
                shown.append(netG(fixed_noise).detach())
        iters += 1
torch.save({"g": netG.state_dict(), "d": netD.state_dict(), "shown": shown, "losses": losses_g + losses_d}, "model.pt")
