"""Small stand-ins for what the README's examples take from the reader: model, args, ds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STEPS = 4


def plain(folder: Path) -> dict[str, Any]:
    """Return model, args and ds for a Trainer: a tiny Llama, 4 steps, a save every 2."""
    import torch
    from transformers import TrainingArguments, set_seed

    from tests.kit.models import tiny_llama

    set_seed(0)
    model = tiny_llama()
    rows = torch.randint(0, 64, (32, 8))
    return {
        "model": model,
        "args": TrainingArguments(str(folder / "output"), **_options()),
        "ds": [{"input_ids": row, "labels": row} for row in rows],
    }


def sft(folder: Path) -> dict[str, Any]:
    """Return model, args and ds for TRL's SFTTrainer, which wants text and a tokenizer beside the model."""
    from datasets import Dataset
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
    from trl import SFTConfig

    from tests.kit.models import tiny_llama

    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "</s>"]
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    home = str(folder / "model")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>").save_pretrained(
        home
    )
    set_seed(0)
    tiny_llama(len(alphabet)).save_pretrained(home)
    return {
        "model": LlamaForCausalLM.from_pretrained(home),
        "args": SFTConfig(str(folder / "output"), bf16=False, gradient_checkpointing=False, **_options()),
        "ds": Dataset.from_dict({"text": [f"{number} and {number} is {2 * number}" for number in range(32)]}),
    }


def loop(folder: Path) -> dict[str, Any]:
    """Return what a loop of one's own has: a tiny Llama, its optimizer and schedule, data, and a step on it."""
    import torch
    from torch.utils.data import DataLoader

    made = plain(folder)
    model = made["model"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def train_step(step: int) -> torch.Tensor:
        rows = torch.stack([made["ds"][int(row)]["labels"] for row in torch.randint(0, 32, (4,))])
        loss: torch.Tensor = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    scaler = torch.amp.GradScaler("cpu")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)

    def train_batch(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss: torch.Tensor = model(**batch).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        optimizer.zero_grad()
        return loss

    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "scaler": scaler,
        "train_batch": train_batch,
        "loader": DataLoader(made["ds"], batch_size=8, shuffle=True),
        "total": STEPS,
        "train_step": train_step,
    }


def _options() -> dict[str, Any]:
    return {
        "max_steps": STEPS,
        "save_steps": 2,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
    }
