"""A learner of values in a world of the script's own class, with a memory of what it saw and a slower target."""

import random
from collections import deque, namedtuple

import torch
from torch import nn

Transition = namedtuple("Transition", ("state", "action", "reward", "following", "over"))
random.seed(138)
torch.manual_seed(138)


class Walk:
    def __init__(self):
        self.at = 0

    def reset(self):
        self.at = 0
        return [0.0]

    def step(self, action):
        self.at += 1 if action else -1
        return [self.at / 5], float(self.at == 5), abs(self.at) >= 5


class Memory:
    def __init__(self, capacity):
        self.memory = deque([], maxlen=capacity)

    def push(self, *args):
        self.memory.append(Transition(*args))

    def sample(self, batch_size):
        return random.sample(self.memory, batch_size)

    def __len__(self):
        return len(self.memory)


policy_net, target_net = nn.Linear(1, 2), nn.Linear(1, 2)
target_net.load_state_dict(policy_net.state_dict())
optimizer = torch.optim.AdamW(policy_net.parameters(), lr=1e-2)
world, memory = Walk(), Memory(200)
state = world.reset()
total_steps = 24
for step in range(total_steps):
    epsilon = max(0.1, 1.0 - step / 20)
    if random.random() < epsilon:
        action = random.randrange(2)
    else:
        with torch.no_grad():
            action = int(policy_net(torch.tensor([state])).argmax())
    following, reward, over = world.step(action)
    memory.push(state, action, reward, following, over)
    state = world.reset() if over else following
    batch = Transition(*zip(*memory.sample(min(len(memory), 8))))
    values = policy_net(torch.tensor(batch.state)).gather(1, torch.tensor(batch.action).unsqueeze(1)).squeeze(1)
    with torch.no_grad():
        later = target_net(torch.tensor(batch.following)).max(1).values * ~torch.tensor(batch.over)
    loss = nn.functional.smooth_l1_loss(values, torch.tensor(batch.reward) + 0.9 * later)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 6 == 0:
        target_net.load_state_dict(policy_net.state_dict())
torch.save({"policy": policy_net.state_dict(), "target": target_net.state_dict()}, "model.pt")
