"""Train an encoder for masked words, classes or answers in a text, with arguments and metrics as examples have them.

Classes: evaluated at each save, the best model loaded at the end. Answers: a Trainer of its own, which makes
predictions of what the model says before it counts.
"""

import os
from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset, load_dataset
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)
from transformers.trainer_utils import EvalLoopOutput, PredictionOutput, get_last_checkpoint


@dataclass
class Arguments:
    """What is trained."""

    task: str = field(metadata={"help": "mlm, glue or qa."})
    config_name: str = field(metadata={"help": "Folder with the configuration of a model."})


class AnswersTrainer(Trainer):
    """Counts answers, not logits."""

    def __init__(self, *args, post_process_function=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.post_process_function = post_process_function

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        dataloader = self.get_eval_dataloader(eval_dataset)
        compute_metrics, self.compute_metrics = self.compute_metrics, None
        try:
            output: EvalLoopOutput = self.evaluation_loop(
                dataloader, description="Evaluation", prediction_loss_only=False, ignore_keys=ignore_keys
            )
        finally:
            self.compute_metrics = compute_metrics
        predictions = self.post_process_function(output.predictions)
        found = compute_metrics(PredictionOutput(predictions, output.label_ids, {}))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def accuracy(found):
    predictions = np.argmax(found.predictions, axis=1)
    return {"accuracy": (predictions == found.label_ids).mean()}


def exact(found):
    starts, ends = found.label_ids
    return {"exact": float(((found.predictions[0] == starts) & (found.predictions[1] == ends)).mean())}


def main():
    task, args = HfArgumentParser((Arguments, TrainingArguments)).parse_args_into_dataclasses()
    last = get_last_checkpoint(args.output_dir) if os.path.isdir(args.output_dir) else None
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(task.config_name)
    config = AutoConfig.from_pretrained(task.config_name)
    lines = load_dataset("sft", split="train")["text"]
    given = {"processing_class": tokenizer}
    if task.task == "mlm":
        model = AutoModelForMaskedLM.from_config(config)
        data = Dataset.from_dict(dict(tokenizer(list(lines), truncation=True, max_length=48)))
        given["data_collator"] = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        cls = Trainer
    elif task.task == "glue":
        config.num_labels = 2
        model = AutoModelForSequenceClassification.from_config(config)
        data = Dataset.from_dict(
            {
                **tokenizer(list(lines), truncation=True, max_length=48),
                "label": [len(line) % 2 for line in lines],
            }
        )
        given["data_collator"] = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)
        given["compute_metrics"] = accuracy
        cls = Trainer
    else:
        model = AutoModelForQuestionAnswering.from_config(config)
        rows = tokenizer(list(lines), truncation=True, max_length=32, padding="max_length")
        data = Dataset.from_dict(
            {
                **rows,
                "start_positions": [number % 7 for number in range(len(lines))],
                "end_positions": [7 + number % 5 for number in range(len(lines))],
            }
        )
        given["data_collator"] = default_data_collator
        given["compute_metrics"] = exact
        given["post_process_function"] = lambda logits: tuple(np.argmax(one, axis=1) for one in logits)
        cls = AnswersTrainer
    trainer = cls(model=model, args=args, train_dataset=data, eval_dataset=data.select(range(24)), **given)
    result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint or last)
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    metrics = trainer.evaluate()
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)


if __name__ == "__main__":
    main()
