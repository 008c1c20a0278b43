# Epochs over a shuffled DataLoader, everything at the top of the file.
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(1)
inputs = torch.randn(40, 8)
data = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
loader = DataLoader(data, batch_size=8, shuffle=True)

net = torch.nn.Sequential(
    torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1)
)
opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(opt, step_size=1, gamma=0.7)
global_step = 0

for epoch in range(3):
    net.train()
    for x, y in loader:
        opt.zero_grad()
        loss = F.mse_loss(net(x), y)
        loss.backward()
        opt.step()
        global_step += 1
    scheduler.step()  # once an epoch
    print(f"epoch {epoch}, step {global_step}: loss {loss.item():.4f}")

torch.save(net.state_dict(), "model.pt")
