"""A Trainer that goes on from the newest folder on its own disk, as most examples do."""

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint


def main():
    set_seed(8)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_dropout=0.1,
    )
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (32, 8))]
    args = TrainingArguments(
        "output",
        max_steps=8,
        save_steps=2,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        resume_from_checkpoint=None,
    )

    checkpoint = None
    if args.resume_from_checkpoint is not None:
        checkpoint = args.resume_from_checkpoint
    else:
        checkpoint = get_last_checkpoint("output") if torch.os.path.isdir("output") else None

    trainer = Trainer(
        model=LlamaForCausalLM(config),
        args=args,
        train_dataset=rows,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    torch.save(trainer.model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
