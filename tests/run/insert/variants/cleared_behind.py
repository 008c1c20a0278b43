"""Two optimizers whose gradients are cleared behind their steps: the generator's backward() adds to the critic's."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(21)
critic, maker = nn.Linear(4, 1), nn.Linear(2, 4)
critic_optimizer = torch.optim.Adam(critic.parameters(), lr=0.02)
maker_optimizer = torch.optim.Adam(maker.parameters(), lr=0.02)
loader = DataLoader(TensorDataset(torch.randn(24, 4)), batch_size=4, shuffle=True)
for epoch in range(3):
    for (real,) in loader:
        fake = maker(torch.randn(4, 2))
        loss = critic(fake.detach()).mean() - critic(real).mean()
        loss.backward()
        critic_optimizer.step()
        critic_optimizer.zero_grad()
        (-critic(maker(torch.randn(4, 2))).mean()).backward()
        maker_optimizer.step()
        maker_optimizer.zero_grad()
torch.save({"critic": critic.state_dict(), "maker": maker.state_dict()}, "model.pt")
