"""A class that trains with callbacks by name, over an iterator that is opened again where it ends."""

import time
from collections import defaultdict

import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset


class Trainer:
    def __init__(self, model, train_dataset):
        self.model, self.train_dataset = model, train_dataset
        self.optimizer = None
        self.callbacks = defaultdict(list)
        self.iter_num, self.iter_time, self.iter_dt = 0, 0.0, 0.0

    def add_callback(self, onevent, callback):
        self.callbacks[onevent].append(callback)

    def trigger_callbacks(self, onevent):
        for callback in self.callbacks.get(onevent, []):
            callback(self)

    def run(self):
        model = self.model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        train_loader = DataLoader(
            self.train_dataset, sampler=RandomSampler(self.train_dataset, replacement=True, num_samples=1000), batch_size=4
        )
        model.train()
        self.iter_num = 0
        self.iter_time = time.time()
        data_iter = iter(train_loader)
        while True:
            try:
                batch = next(data_iter)
            except StopIteration:
                data_iter = iter(train_loader)
                batch = next(data_iter)
            (x,) = batch
            self.loss = ((model(x) - x) ** 2).mean()
            model.zero_grad(set_to_none=True)
            self.loss.backward()
            self.optimizer.step()
            self.trigger_callbacks("on_batch_end")
            self.iter_num += 1
            tnow = time.time()
            self.iter_dt = tnow - self.iter_time
            self.iter_time = tnow
            if self.iter_num >= 12:
                break


torch.manual_seed(113)
model = torch.nn.Linear(4, 4)
trainer = Trainer(model, TensorDataset(torch.randn(40, 4)))
trainer.add_callback("on_batch_end", lambda trainer: print(trainer.iter_num, trainer.loss.item()))
trainer.run()
torch.save(model.state_dict(), "model.pt")
