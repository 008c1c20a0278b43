"""One random word a step, written letter by letter into a memory; losses gathered for a curve; descent by hand."""

import random
import time

import torch
from torch import nn

all_letters = "abcdefg"
words = {"up": ["abc", "abd", "bcd", "cde"], "down": ["gfe", "fed", "edc", "dcb"]}
all_categories = list(words)
torch.manual_seed(126)
random.seed(126)


class Rnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(7 + 6, 6), nn.Linear(6, 2)

    def forward(self, letter, hidden):
        hidden = torch.tanh(self.hidden(torch.cat((letter, hidden), 1)))
        return torch.log_softmax(self.out(hidden), 1), hidden


rnn = Rnn()
criterion = nn.NLLLoss()
learning_rate = 0.05


def random_example():
    category = random.choice(all_categories)
    line = random.choice(words[category])
    tensor = torch.zeros(len(line), 1, 7)
    for at, letter in enumerate(line):
        tensor[at][0][all_letters.find(letter)] = 1
    return torch.tensor([all_categories.index(category)]), tensor


def train(category_tensor, line_tensor):
    hidden = torch.zeros(1, 6)
    rnn.zero_grad()
    for i in range(line_tensor.size()[0]):
        output, hidden = rnn(line_tensor[i], hidden)
    loss = criterion(output, category_tensor)
    loss.backward()
    for p in rnn.parameters():
        p.data.add_(p.grad.data, alpha=-learning_rate)
    return output, loss.item()


current_loss = 0
all_losses = []
start = time.time()
for iter in range(1, 21):
    category_tensor, line_tensor = random_example()
    output, loss = train(category_tensor, line_tensor)
    current_loss += loss
    if iter % 5 == 0:
        print(iter, time.time() - start, loss)
    if iter % 4 == 0:
        all_losses.append(current_loss / 4)
        current_loss = 0
torch.save({"rnn": rnn.state_dict(), "losses": all_losses}, "model.pt")
