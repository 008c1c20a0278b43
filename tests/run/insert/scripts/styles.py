"""One pass with two losses against a fixed network, sums of both, and a checkpoint on the way every few batches."""

import argparse
import os
import time

import numpy as np
import torch
from torch.optim import Adam
from torch.utils.data import DataLoader, TensorDataset


def train(args):
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    train_loader = DataLoader(TensorDataset(torch.randn(48, 4)), batch_size=4)
    transformer = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    optimizer = Adam(transformer.parameters(), args.lr)
    mse_loss = torch.nn.MSELoss()
    looks = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh()).requires_grad_(False)
    features_style = looks(torch.ones(1, 4))
    for e in range(args.epochs):
        transformer.train()
        agg_content_loss = 0.0
        agg_style_loss = 0.0
        count = 0
        for batch_id, (x,) in enumerate(train_loader):
            n_batch = len(x)
            count += n_batch
            optimizer.zero_grad()
            y = transformer(x)
            features_y, features_x = looks(y), looks(x)
            content_loss = args.content_weight * mse_loss(features_y, features_x)
            style_loss = 0.0
            for one in features_y:
                style_loss += mse_loss(one, features_style[0])
            style_loss *= args.style_weight
            total_loss = content_loss + style_loss
            total_loss.backward()
            optimizer.step()
            agg_content_loss += content_loss.item()
            agg_style_loss += style_loss.item()
            if (batch_id + 1) % args.log_interval == 0:
                print(time.ctime(), e + 1, count, agg_content_loss / (batch_id + 1), agg_style_loss / (batch_id + 1))
            if args.checkpoint_dir is not None and (batch_id + 1) % args.checkpoint_interval == 0:
                transformer.eval()
                name = "ckpt_epoch_" + str(e) + "_batch_id_" + str(batch_id + 1) + ".pth"
                torch.save(transformer.state_dict(), os.path.join(args.checkpoint_dir, name))
                transformer.train()
    transformer.eval()
    torch.save(transformer.state_dict(), "model.pt")


def main():
    main_parser = argparse.ArgumentParser()
    main_parser.add_argument("--epochs", type=int, default=2)
    main_parser.add_argument("--seed", type=int, default=42)
    main_parser.add_argument("--content-weight", type=float, default=1.0)
    main_parser.add_argument("--style-weight", type=float, default=0.1)
    main_parser.add_argument("--lr", type=float, default=1e-2)
    main_parser.add_argument("--log-interval", type=int, default=4)
    main_parser.add_argument("--checkpoint-dir", default=None)
    main_parser.add_argument("--checkpoint-interval", type=int, default=4)
    train(main_parser.parse_args())


if __name__ == "__main__":
    main()
