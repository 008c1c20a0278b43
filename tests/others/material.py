"""What the programs here are given: a tokenizer, a model's configuration and data, all made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

FILES = (
    *("llama", "bert", "sft", "preferences", "prompts"),
    *("text.txt", "rows.pt", "chat.jsonl", "sums.json", "dataset_info.json"),
)


def make(folder: Path) -> Path:
    """Make ``FILES`` in a folder: models with weights and a tokenizer, and data as programs want them; return it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

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
    wrapped.add_special_tokens({"mask_token": "<mask>", "sep_token": "</s>", "cls_token": "</s>"})
    wrapped.save_pretrained(folder / "bert")
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(wrapped),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=128,
        )
    ).save_pretrained(folder / "bert")
    lines = [
        f"{number} and {number} is {2 * number}, and {number} more is {3 * number}." for number in range(64)
    ]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    asked = [(f"What is {number} and {number}?", str(2 * number)) for number in range(64)]
    rows = {
        "sft": [{"text": line} for line in lines],
        "preferences": [
            {"prompt": question, "chosen": f" {answer}.", "rejected": " I don't know."}
            for question, answer in asked
        ],
        "prompts": [{"prompt": question} for question, _ in asked],
    }
    for name, its in rows.items():
        (folder / name).mkdir()
        (folder / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in its))
    chats = [
        {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": other}]}
        for one, other in asked
    ]
    (folder / "chat.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    sums = [{"instruction": one, "input": "", "output": other} for one, other in asked]
    (folder / "sums.json").write_text(json.dumps(sums))
    (folder / "dataset_info.json").write_text(json.dumps({"sums": {"file_name": "sums.json"}}))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 64, (32, 12), generator=generator)
    torch.save({"input_ids": ids, "labels": ids.sum(dim=1) % 2}, folder / "rows.pt")
    return folder
