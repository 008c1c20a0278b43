"""Uses the vault already: nothing to do."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from vaultlayer_hf import Trainer

rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (32, 8))]
config = LlamaConfig(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
)
args = TrainingArguments("output", max_steps=4, save_steps=2, use_cpu=True, report_to=[])
Trainer(model=LlamaForCausalLM(config), args=args, train_dataset=rows, resume="vaults/mine").train()
