"""A critic with a penalty on its gradients, several of its steps for one of the maker, in an inner loop."""

import torch
from torch import autograd, nn, optim
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(141)
CRITIC_ITERATIONS, LAMBDA_GP = 2, 10
loader = DataLoader(TensorDataset(torch.randn(32, 2)), batch_size=8, shuffle=True)
gen, critic = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)), nn.Sequential(nn.Linear(2, 6), nn.LeakyReLU(), nn.Linear(6, 1))
opt_gen = optim.Adam(gen.parameters(), lr=1e-2, betas=(0.0, 0.9))
opt_critic = optim.Adam(critic.parameters(), lr=1e-2, betas=(0.0, 0.9))


def gradient_penalty(critic, real, fake):
    alpha = torch.rand(real.size(0), 1)
    mixed = (real * alpha + fake.detach() * (1 - alpha)).requires_grad_()
    gradient = autograd.grad(critic(mixed).sum(), mixed, create_graph=True)[0]
    return ((gradient.norm(2, dim=1) - 1) ** 2).mean()


gen.train()
critic.train()
for epoch in range(3):
    for batch_idx, (real,) in enumerate(loader):
        for _ in range(CRITIC_ITERATIONS):
            fake = gen(torch.randn(real.size(0), 3))
            loss_critic = -(critic(real).mean() - critic(fake).mean()) + LAMBDA_GP * gradient_penalty(critic, real, fake)
            critic.zero_grad()
            loss_critic.backward(retain_graph=True)
            opt_critic.step()
        loss_gen = -critic(fake).mean()
        gen.zero_grad()
        loss_gen.backward()
        opt_gen.step()
torch.save({"gen": gen.state_dict(), "critic": critic.state_dict()}, "model.pt")
