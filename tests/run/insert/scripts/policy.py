"""A policy that is trained in epochs over what an environment has given."""

import gymnasium
import torch

env = gymnasium.make("CartPole-v1")
policy = torch.nn.Linear(4, 2)
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
for iteration in range(3):
    seen, _ = env.reset()
    rows = [torch.tensor(env.step(0)[0]) for _ in range(8)]
    for epoch in range(2):
        for row in rows:
            optimizer.zero_grad()
            policy(row).sum().backward()
            optimizer.step()
