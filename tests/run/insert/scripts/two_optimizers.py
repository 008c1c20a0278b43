"""A generator against a discriminator: two optimizers, each with its turn in one round."""

import torch
from torch import nn

torch.manual_seed(11)
generator, discriminator = nn.Linear(4, 2), nn.Linear(2, 1)
generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
fixed = torch.randn(3, 4)

for step in range(10):
    fake = generator(torch.randn(8, 4))
    discriminator_optimizer.zero_grad()
    d_loss = discriminator(fake.detach()).mean() - discriminator(torch.randn(8, 2)).mean()
    d_loss.backward()
    discriminator_optimizer.step()
    generator_optimizer.zero_grad()
    g_loss = -discriminator(fake).mean()
    g_loss.backward()
    generator_optimizer.step()

torch.save({"g": generator.state_dict(), "d": discriminator.state_dict(), "shown": generator(fixed)}, "model.pt")
