"""An encoder and a decoder with an optimizer each, teacher forcing by chance, an average loss by a function's epoch."""

import random
import time

import torch
from torch import nn, optim
from torch.utils.data import DataLoader, RandomSampler, TensorDataset


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.drop, self.gru = nn.Embedding(8, 6), nn.Dropout(0.1), nn.GRU(6, 6, batch_first=True)

    def forward(self, x):
        return self.gru(self.drop(self.embed(x)))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.gru, self.out = nn.Embedding(8, 6), nn.GRU(6, 6, batch_first=True), nn.Linear(6, 8)

    def forward(self, hidden, target):
        found, x = [], torch.zeros(hidden.size(1), 1, dtype=torch.long)
        for at in range(target.size(1)):
            output, hidden = self.gru(self.embed(x), hidden)
            output = self.out(output)
            found.append(output)
            x = target[:, at : at + 1] if random.random() < 0.5 else output.argmax(-1).detach()
        return torch.cat(found, dim=1)


def train_epoch(dataloader, encoder, decoder, encoder_optimizer, decoder_optimizer, criterion):
    total_loss = 0
    for data in dataloader:
        input_tensor, target_tensor = data
        encoder_optimizer.zero_grad()
        decoder_optimizer.zero_grad()
        _, encoder_hidden = encoder(input_tensor)
        decoder_outputs = decoder(encoder_hidden, target_tensor)
        loss = criterion(decoder_outputs.view(-1, 8), target_tensor.view(-1))
        loss.backward()
        encoder_optimizer.step()
        decoder_optimizer.step()
        total_loss += loss.item()
    return total_loss / len(dataloader)


def train(train_dataloader, encoder, decoder, n_epochs, learning_rate=0.01, print_every=2):
    start = time.time()
    plot_losses = []
    print_loss_total = 0
    encoder_optimizer = optim.Adam(encoder.parameters(), lr=learning_rate)
    decoder_optimizer = optim.Adam(decoder.parameters(), lr=learning_rate)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(1, n_epochs + 1):
        loss = train_epoch(train_dataloader, encoder, decoder, encoder_optimizer, decoder_optimizer, criterion)
        print_loss_total += loss
        if epoch % print_every == 0:
            print(epoch, print_loss_total / print_every, time.time() - start)
            print_loss_total = 0
        plot_losses.append(loss)
    return plot_losses


random.seed(127)
torch.manual_seed(127)
pairs = TensorDataset(torch.randint(1, 8, (24, 5)), torch.randint(1, 8, (24, 4)))
dataloader = DataLoader(pairs, sampler=RandomSampler(pairs), batch_size=6)
encoder, decoder = Encoder(), Decoder()
losses = train(dataloader, encoder, decoder, 4)
torch.save({"encoder": encoder.state_dict(), "decoder": decoder.state_dict(), "losses": losses}, "model.pt")
