"""Trains with Lightning's Trainer."""

import lightning
import torch


class Lit(lightning.LightningModule):
    def training_step(self, batch):
        return batch.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


lightning.Trainer(max_epochs=1).fit(Lit(), [torch.ones(2)])
