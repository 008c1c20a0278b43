"""Saves beside the training have the same files as stock's, to the byte."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.trainer.async_kit import MARKS, asked, contents, lost_saves
from tests.trainer.kit import Recorder, Tokens, big_model, model, trainer
from vaultlayer_hf.state.capture import copier, recorded
from vaultlayer_hf.vault.snapshot import LOCAL
from vaultlayer_hf.vault.workspace import workspace

pytestmark = MARKS


class Normed(torch.nn.Module):
    """A model with running statistics, which a forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Embedding(64, 4096)
        self.norm = torch.nn.BatchNorm1d(4096)
        self.head = torch.nn.Linear(4096, 64)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.norm(self.inner(input_ids).mean(1)))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels[:, 0]), "logits": logits}


def with_lora() -> Any:
    """An adapter of more than a MiB on a Llama."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=64, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(model(vocab=64, hidden=1024), config)


def in_shards() -> Any:
    """A Llama that saves its weights in several files."""
    made = big_model()
    save = made.save_pretrained

    def save_pretrained(*args: Any, **kwargs: Any) -> Any:
        return save(*args, **{**kwargs, "max_shard_size": "1300KB"})

    made.save_pretrained = save_pretrained
    return made


def untied() -> Any:
    """A Llama whose head has weights of its own."""
    made = big_model()
    made.config.tie_word_embeddings = False
    made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.detach().clone())
    return made


KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "tied weights": (big_model, {}),
    "untied": (untied, {}),
    "shards": (in_shards, {}),
    "accumulation": (big_model, {"gradient_accumulation_steps": 3}),
    "lora": (with_lora, {}),
    "running statistics": (Normed, {}),
    "the best and a limit": (
        big_model,
        {
            "load_best_model_at_end": True,
            "save_total_limit": 1,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "learning_rate": 0.5,
            "eval_dataset": Tokens(4),
        },
    ),
    "each epoch": (big_model, {"save_strategy": "epoch", "max_steps": -1, "num_train_epochs": 3}),
    "each step": (big_model, {"save_steps": 1, "save_total_limit": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_stocks(kind: str, tmp_path: Path, copies: list[int]) -> None:
    """Every file of every checkpoint has the bytes that the stock Trainer writes, and training comes to the same."""
    make, more = KINDS[kind]
    out = tmp_path / "out"
    stock = trainer(out, cls=transformers.Trainer, model=make(), **more)
    stock.train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    run = trainer(out, resume=asked(tmp_path / "vault"), model=make(), **more)
    heard = Recorder(run)
    run.train()
    assert copies
    assert contents(out) == expected
    for name, tensor in stock.model.state_dict().items():
        assert torch.equal(tensor, run.model.state_dict()[name])
    assert not [event.message for event in heard.events if "async_save" in event.message]
    assert not lost_saves(heard)
    assert not list(workspace(out).glob("pending-*"))


def test_training_waits_for_no_deletion(
    tmp_path: Path, copies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that goes by save_total_limit is deleted by another thread, and nothing of it is left behind."""
    deleted: list[tuple[str, bool]] = []
    remove = shutil.rmtree

    def noted(path: Any, *args: Any, **kwargs: Any) -> None:
        if (Path(path) / "model.safetensors").exists():
            deleted.append((Path(path).name, threading.current_thread() is threading.main_thread()))
        remove(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", noted)
    out = tmp_path / "out"
    settings = asked(tmp_path / "vault")
    trainer(out, resume=settings, model=big_model(), save_steps=1, save_total_limit=1).train()
    assert copies
    assert deleted
    assert not [name for name, by_training in deleted if by_training or name.startswith("checkpoint-")]
    assert len(list(out.glob("checkpoint-*"))) == 1
    assert not list((out / LOCAL).glob("old-*"))


def test_a_small_state_is_written_at_once(
    tmp_path: Path, copies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where writing takes milliseconds there is nothing to gain: the checkpoint is there when the save returns."""
    monkeypatch.setattr(copier, "SMALL", 2**25)
    pickled: list[Any] = []
    monkeypatch.setattr(recorded, "record_torch_save", lambda obj, path: pickled.append(obj))
    out = tmp_path / "out"
    trainer(out, cls=transformers.Trainer, model=big_model()).train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    trainer(out, resume=asked(tmp_path / "vault"), model=big_model()).train()
    assert contents(out) == expected
    assert not copies
    assert not pickled  # to learn what it consists of takes as long as to write it


def test_sft(tmp_path: Path, copies: list[int]) -> None:
    """The files of TRL's SFTTrainer are stock's, too."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from vaultlayer_hf import resumable

    rows = datasets.Dataset.from_dict({"input_ids": Tokens().rows.tolist()})
    out = tmp_path / "out"

    def made(cls: Any, **more: Any) -> Any:
        args = trl.SFTConfig(
            output_dir=str(out),
            use_cpu=True,
            max_steps=4,
            save_steps=2,
            report_to="none",
            disable_tqdm=True,
            bf16=False,
            per_device_train_batch_size=2,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            gradient_checkpointing=False,
            seed=3,
            dataloader_pin_memory=False,
        )
        collate = _collate
        return cls(
            model=big_model(),
            args=args,
            train_dataset=rows,
            data_collator=collate,
            processing_class=_words(),
            **more,
        )

    made(trl.SFTTrainer).train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    made(resumable(trl.SFTTrainer), resume=asked(tmp_path / "vault")).train()
    assert copies
    assert contents(out) == expected


def _collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}


def _words() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{number}": number for number in range(62)} | {"<unk>": 62, "<eos>": 63}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    )
