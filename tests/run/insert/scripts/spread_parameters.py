"""Parameters that are spread over ranks, without an Accelerator."""

import torch
from torch.distributed.fsdp import fully_shard

model = torch.nn.Linear(4, 4)
fully_shard(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(9):
    optimizer.zero_grad()
    model(torch.rand(2, 4)).sum().backward()
    optimizer.step()
