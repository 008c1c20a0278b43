"""The training that the benchmark stops or slows: a small Llama from a config, random tokens, AdamW, one process."""

from __future__ import annotations

from typing import Any


def small_llama(megabytes: int) -> Any:
    """Return a Llama with about that many MB of float32 parameters; a checkpoint of it is three times as large."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden = 512
    layer = 4 * hidden**2 + 3 * hidden * 4 * hidden  # attention, and an MLP four times as wide
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=max(1, round(megabytes * 10**6 / 4 / layer)),
        num_attention_heads=8,
        max_position_embeddings=128,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


class Tokens:
    """A dataset of random token sequences that costs nothing to read."""

    def __init__(self, length: int, size: int) -> None:
        import torch

        self.items = torch.randint(0, 512, (size, length), generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.items[index], "labels": self.items[index]}
