"""Train a causal language model on a text file, with arguments, checkpoints and metrics as examples have them."""

import logging
import os
import sys
from dataclasses import dataclass, field
from itertools import chain

import datasets
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

logger = logging.getLogger(__name__)


@dataclass
class ModelArguments:
    """Which model is trained."""

    config_name: str = field(
        metadata={"help": "Folder with the configuration of a model to train from scratch."}
    )
    tokenizer_name: str = field(metadata={"help": "Folder with a tokenizer."})


@dataclass
class DataArguments:
    """What it is trained on."""

    train_file: str = field(metadata={"help": "A text file."})
    block_size: int = field(default=32, metadata={"help": "Tokens in a row."})


def blocks(dataset, tokenizer, size):
    """Tokenise, put everything behind each other, and cut it into rows of one length."""
    tokens = dataset.map(lambda rows: tokenizer(rows["text"]), batched=True, remove_columns=["text"])

    def group(rows):
        joined = {name: list(chain(*values)) for name, values in rows.items()}
        total = len(joined["input_ids"]) // size * size
        cut = {name: [ids[at : at + size] for at in range(0, total, size)] for name, ids in joined.items()}
        cut["labels"] = cut["input_ids"].copy()
        return cut

    return tokens.map(group, batched=True)


def main():
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    logging.basicConfig(handlers=[logging.StreamHandler(sys.stdout)], level=logging.INFO)
    transformers.utils.logging.set_verbosity_warning()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logger.info("rank %s of %s", training_args.process_index, training_args.world_size)

    last_checkpoint = None
    if os.path.isdir(training_args.output_dir):
        last_checkpoint = get_last_checkpoint(training_args.output_dir)
        if last_checkpoint is not None and training_args.resume_from_checkpoint is None:
            logger.info("Checkpoint detected, resuming training at %s.", last_checkpoint)

    set_seed(training_args.seed)
    raw = datasets.load_dataset("text", data_files={"train": data_args.train_file})
    tokenizer = AutoTokenizer.from_pretrained(model_args.tokenizer_name)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_args.config_name))
    with training_args.main_process_first(desc="grouping texts together"):
        train_dataset = blocks(raw["train"], tokenizer, data_args.block_size)

    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset,
        processing_class=tokenizer,
        data_collator=default_data_collator,
    )

    checkpoint = None
    if training_args.resume_from_checkpoint is not None:
        checkpoint = training_args.resume_from_checkpoint
    elif last_checkpoint is not None:
        checkpoint = last_checkpoint
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    metrics = {**result.metrics, "train_samples": len(train_dataset)}
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()


if __name__ == "__main__":
    main()
