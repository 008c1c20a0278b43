"""Training programs for processes of their own, by kind of Trainer: each prints the digest of the final weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from tests.trainer import kit
from vaultlayer_hf import VaultLayerCallback, resumable


def seq2seq(output_dir: Path, resume: Any, callbacks: list[Any], **more: Any) -> Any:
    """A Seq2SeqTrainer on a tiny T5."""
    import torch

    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
    )
    common = kit.arguments(output_dir, **more).to_dict()
    names = set(transformers.Seq2SeqTrainingArguments.__dataclass_fields__)
    args = transformers.Seq2SeqTrainingArguments(
        **{name: value for name, value in common.items() if name in names and name != "hub_token"}
    )
    return resumable(transformers.Seq2SeqTrainer)(
        model=model, args=args, train_dataset=kit.Tokens(), resume=resume, callbacks=callbacks
    )


def lora(output_dir: Path, resume: Any, callbacks: list[Any], **more: Any) -> Any:
    """Our Trainer on a PEFT LoRA model."""
    import peft

    base = kit.model()
    model = peft.get_peft_model(
        base,
        peft.LoraConfig(r=2, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    return kit.trainer(output_dir, model=model, resume=resume, callbacks=callbacks, **more)


def sft(output_dir: Path, resume: Any, callbacks: list[Any], *, adapter: bool = False, **more: Any) -> Any:
    """TRL's SFTTrainer on tokens, with a LoRA adapter of its own making where asked."""
    import datasets
    import peft
    import trl

    rows = kit.Tokens().rows.tolist()
    common = kit.arguments(output_dir, **more).to_dict()
    wanted = (
        "max_steps",
        "save_steps",
        "logging_steps",
        "per_device_train_batch_size",
        "learning_rate",
        "seed",
    )
    args = trl.SFTConfig(
        output_dir=str(output_dir),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        max_length=16,
        eos_token=None,
        **{name: common[name] for name in wanted},
    )
    config = peft.LoraConfig(r=2, lora_dropout=0.1, target_modules=["q_proj", "v_proj"]) if adapter else None
    return resumable(trl.SFTTrainer)(
        model=kit.model(),
        args=args,
        train_dataset=datasets.Dataset.from_list([{"input_ids": row} for row in rows]),
        processing_class=tokenizer(),
        peft_config=config,
        resume=resume,
        callbacks=callbacks,
    )


def tokenizer() -> Any:
    """A tokenizer of 64 words, made here: nothing is downloaded."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{number}": number for number in range(62)} | {"<pad>": 62, "<eos>": 63}
    bare = Tokenizer(models.WordLevel(words, unk_token="w0"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="<eos>")


def sft_lora(output_dir: Path, resume: Any, callbacks: list[Any], **more: Any) -> Any:
    """TRL's SFTTrainer that makes a LoRA adapter itself."""
    return sft(output_dir, resume, callbacks, adapter=True, **more)


def plain(output_dir: Path, resume: Any, callbacks: list[Any], **more: Any) -> Any:
    """Our Trainer on a tiny Llama."""
    return kit.trainer(output_dir, resume=resume, callbacks=callbacks, **more)


def alone(output_dir: Path, resume: Any, callbacks: list[Any], **more: Any) -> Any:
    """The stock Trainer with our callback."""
    vault = VaultLayerCallback(resume)
    made = kit.trainer(output_dir, cls=transformers.Trainer, callbacks=[vault, *callbacks], **more)
    made.pull = vault.pull
    return made


KINDS = {item.__name__: item for item in (plain, alone, seq2seq, lora, sft, sft_lora)}


def train(
    kind: str,
    output_dir: str,
    vault: str | None,
    *,
    kill_at: int | None = None,
    committed: int = 0,
    fail_at: int | None = None,
    **more: Any,
) -> None:
    """Train, die by SIGKILL at a step if asked, else print the digest of the weights."""
    callbacks: list[Any] = []
    if kill_at is not None:
        callbacks.append(kit.KillAt(kill_at, vault or "", committed))
    if fail_at is not None:
        callbacks.append(kit.FailAt(fail_at))
    made = KINDS[kind](Path(output_dir), vault, callbacks, **more)
    if kind == "alone":
        made.train(resume_from_checkpoint=made.pull())
    else:
        made.train()
    print("WEIGHTS", kit.weights(made.model), made.state.global_step, flush=True)
