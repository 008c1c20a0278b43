"""The one tiny model of the tests: a Llama of a few thousand parameters, made from a config."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_llama(
    vocab_size: int = 64,
    hidden_size: int = 16,
    *,
    layers: int = 1,
    seed: int | None = 0,
    cls: type[LlamaForCausalLM] = LlamaForCausalLM,
    **config: Any,
) -> Any:
    """Return an untrained Llama; 5 thousand parameters unless asked for more.

    Args:
        vocab_size: tokens it knows.
        hidden_size: width of a layer; two heads, and an inner layer of twice the width.
        layers: how many layers.
        seed: of its weights; None leaves torch's random numbers as they are.
        cls: a subclass to make.
        config: what else ``LlamaConfig`` takes. ``attention_dropout`` makes a training depend on random numbers.
    """
    if seed is not None:
        torch.manual_seed(seed)
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
    }
    return cls(LlamaConfig(**{**sizes, **config}))
