"""What the programs here are given: a tokenizer, a model's configuration and data, all made on the spot."""

from __future__ import annotations

import json
from pathlib import Path


def make(folder: Path) -> Path:
    """Make ``llama`` (with weights), ``bert``, ``text.txt``, ``sft`` and ``rows.pt`` in a folder; return it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import BertConfig, PreTrainedTokenizerFast

    from tests.kit.models import tiny_llama

    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "</s>"]
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    wrapped.save_pretrained(folder / "llama")
    tiny_llama(len(alphabet), attention_dropout=0.1, max_position_embeddings=128).save_pretrained(
        folder / "llama"
    )
    BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    ).save_pretrained(folder / "bert")
    lines = [
        f"{number} and {number} is {2 * number}, and {number} more is {3 * number}." for number in range(64)
    ]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    (folder / "sft").mkdir()
    rows = [json.dumps({"text": line}) for line in lines]
    (folder / "sft" / "train.jsonl").write_text("\n".join(rows) + "\n")
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 64, (32, 12), generator=generator)
    torch.save({"input_ids": ids, "labels": ids.sum(dim=1) % 2}, folder / "rows.pt")
    return folder
