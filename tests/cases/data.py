"""Cases of where a training is in its data."""

from __future__ import annotations

import inspect
import json
import random
import textwrap
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.cases.case import Bench, Verdict, case, tell
from tests.cases.training import ROWS, TRL, digest, doing, go, made, trl_made, trl_model


def streamed(side: str, out: str, vault: str | None, die: list[int] | None = None) -> None:
    """A streaming data set of ``datasets``, which tells where it is by itself."""
    import datasets

    rows = [row["input_ids"].tolist() for row in ROWS]
    data = datasets.Dataset.from_dict({"input_ids": rows, "labels": rows}).to_iterable_dataset(num_shards=2)
    at = (die[0], die[1]) if die else None
    collate = transformers.default_data_collator
    trainer = made(side, out, vault, _collating(collate), die=at, train_dataset=data, max_steps=14)
    tell(digest(go(trainer).model))


def _collating(collate: Any) -> Any:
    class Given(transformers.Trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, data_collator=collate, **kwargs)

    return Given


@case(
    "stream-three-breaks",
    "a streaming data set of `datasets`, broken off at 3, 7 and 11",
    "the weights of an unbroken run, or a line that the place isn't trusted",
    needs=("datasets",),
)
def stream_three_breaks(bench: Bench) -> Verdict:
    expected = bench.play(streamed, "unbroken").found
    log = "".join(bench.play(streamed, die=[at, at - 1]).log for at in (3, 7, 11))
    done = bench.play(streamed)
    said = "differ" in log + done.log or "again" in log + done.log
    equal = done.found == expected
    return Verdict(
        equal or (bench.ours and said), f"weights equal: {equal}" + ("" if equal else f", {done.last[:80]}")
    )


def packed(side: str, out: str, vault: str | None, files: str, die: list[int] | None = None) -> None:
    """TRL's SFTTrainer on streamed text, packed."""
    import datasets
    import trl

    from tests.trainer.kit import model
    from tests.trainer.programs import tokenizer

    texts = sorted(str(path) for path in Path(files).glob("*.jsonl"))
    data = datasets.load_dataset("json", data_files=texts, split="train", streaming=True, cache_dir=files)
    args = trl.SFTConfig(
        output_dir=out,
        **(TRL | {"max_steps": 14, "save_steps": 5}),
        max_length=32,
        packing=True,
    )
    trainer = trl_made(
        trl.SFTTrainer,
        side,
        vault,
        die,
        model=model(),
        args=args,
        train_dataset=data,
        processing_class=tokenizer(),
    )
    tell(digest(go(trainer).model))


@case(
    "streamed-packed",
    "TRL's SFTTrainer on a streamed JSON data set with packing, broken off at 7 and 11",
    "the weights of an unbroken run, or a line that numbers may differ",
    needs=("datasets", "trl"),
    quick=False,
)
def streamed_packed(bench: Bench) -> Verdict:
    texts = bench.folder / "texts"
    texts.mkdir()
    for part in range(4):
        lines = [
            json.dumps({"text": " ".join(f"w{(7 * n + 3 * k + part) % 60}" for k in range(3 + n % 11))})
            for n in range(40)
        ]
        (texts / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    expected = bench.play(packed, "unbroken", files=str(texts)).found
    broken = [bench.play(packed, files=str(texts), die=[at, at // 5 * 5]) for at in (7, 11)]
    done = bench.play(packed, "b", files=str(texts))
    said = any("may differ" in one.log for one in (*broken, done))
    equal = expected is not None and done.found == expected
    return Verdict(
        equal or (bench.ours and said and done.code == 0),
        f"exit {done.code}, weights equal: {equal}, said: {said}",
    )


class Shuffled(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Ten rows in another order in each pass, without a length."""

    passes = 0

    def __iter__(self) -> Any:
        order = torch.randperm(10, generator=torch.Generator().manual_seed(self.passes))
        self.passes += 1
        return iter([ROWS[index] for index in order.tolist()])


def iterable(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """An iterable data set that is shorter than the training."""
    trainer = made(
        side,
        out,
        vault,
        die=(13, 12) if dies else None,
        train_dataset=Shuffled(),
        max_steps=20,
        gradient_accumulation_steps=3,
    )
    go(trainer)
    losses = [round(entry["loss"], 6) for entry in trainer.state.log_history if "loss" in entry]
    tell([digest(trainer.model), trainer.state.global_step, losses])


@case(
    "iterable-shorter",
    "an iterable data set without a length, shuffled anew in each of its many passes, killed at 13",
    "all steps, losses and weights are those of an unbroken run",
)
def iterable_shorter(bench: Bench) -> Verdict:
    expected = bench.play(iterable, "unbroken").found
    bench.play(iterable, dies=True)
    done = bench.play(iterable, "b")
    steps = done.found[1] if done.found else done.last
    return Verdict(done.found == expected, f"trained to {steps}, as unbroken: {done.found == expected}")


def stateful(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """accelerate's StatefulDataLoader with persistent workers, three epochs."""
    import datasets

    rows = [row["input_ids"].tolist() for row in ROWS]
    data = datasets.Dataset.from_dict({"input_ids": rows, "labels": rows}).to_iterable_dataset(num_shards=4)
    epochs: dict[str, int] = {}

    def count(state: Any) -> None:
        epoch = str(int(state.epoch - 1e-6))
        epochs[epoch] = epochs.get(epoch, 0) + 1

    trainer = made(
        side,
        out,
        vault,
        _collating(transformers.default_data_collator),
        die=(16, 15) if dies else None,
        callbacks=[doing(on_step_end=count)],
        train_dataset=data,
        max_steps=30,
        save_steps=3,
        dataloader_num_workers=2,
        dataloader_persistent_workers=True,
    )
    trainer.accelerator.dataloader_config.use_stateful_dataloader = True
    go(trainer)
    tell([digest(trainer.model), epochs])


@case(
    "stateful-persistent",
    "StatefulDataLoader with two persistent workers over a stream, killed in its second epoch",
    "later epochs are as long as an unbroken run's; numbers that differ are said",
    needs=("datasets", "torchdata"),
    quick=False,
)
def stateful_persistent(bench: Bench) -> Verdict:
    expected = bench.play(stateful, "unbroken").found
    bench.play(stateful, dies=True)
    done = bench.play(stateful, "b")
    if not done.found or not expected:
        return Verdict(False, done.last)
    later = {epoch: steps for epoch, steps in expected[1].items() if int(epoch) > 1}
    long = all(done.found[1].get(epoch) == steps for epoch, steps in later.items())
    equal, said = done.found[0] == expected[0], "may differ" in done.log
    return Verdict(
        long and (equal or said), f"epochs {done.found[1]}, as long: {long}, equal: {equal}, said: {said}"
    )


class Augmented(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Draws from this process's generators for each row."""

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = ROWS[index]["input_ids"].clone()
        row[random.randrange(16)] = int(torch.randint(0, 64, ()))
        return {"input_ids": row, "labels": row}


def copied(side: str, out: str, vault: str | None, die: list[int] | None = None) -> None:
    """Another library has put a copy of the Trainer's loop in its place, as some do for speed."""
    names = dict(vars(transformers.trainer))
    for name, method in list(vars(transformers.Trainer).items()):
        if inspect.isfunction(method) and "skip_first_batches(" in inspect.getsource(method):
            exec(textwrap.dedent(inspect.getsource(method)), names)
            setattr(transformers.Trainer, name, names[name])
    at = (die[0], die[1]) if die else None
    tell(digest(go(made(side, out, vault, die=at, train_dataset=Augmented(), max_steps=16)).model))


@case(
    "copied-loop",
    "a library runs a copy of the Trainer's loop; killed within an epoch, twice",
    "the weights of an unbroken run, or a line that the place in the data isn't kept",
)
def copied_loop(bench: Bench) -> Verdict:
    expected = bench.play(copied, "unbroken").found
    log = "".join(bench.play(copied, die=[at, at - 1]).log for at in (5, 9))
    done = bench.play(copied)
    said = any(words in log + done.log for words in ("differ", "isn't kept"))
    equal = done.found == expected
    return Verdict(equal or (bench.ours and said), f"weights equal: {equal}, said: {said}")


def reward(completions: list[str], **kwargs: Any) -> list[float]:
    """A reward that is the same for the same text."""
    return [float(sum(len(word) for word in text.split())) for text in completions]


def grpo(side: str, out: str, vault: str | None, die: list[int] | None = None) -> None:
    """TRL's GRPOTrainer, whose completions are used over eight steps."""
    import datasets
    import trl

    from tests.trainer.programs import tokenizer

    args = trl.GRPOConfig(
        output_dir=out,
        **TRL,
        num_generations=2,
        max_completion_length=8,
        beta=0.04,
        steps_per_generation=4,
        num_iterations=2,
        gradient_accumulation_steps=1,
    )
    base = f"{out}-base"  # the reference model is loaded from there
    trl_model().save_pretrained(base)
    trainer = trl_made(
        trl.GRPOTrainer,
        side,
        vault,
        die,
        model=transformers.LlamaForCausalLM.from_pretrained(base),
        args=args,
        reward_funcs=reward,
        train_dataset=datasets.Dataset.from_list([{"prompt": f"w{n} w{n + 1}"} for n in range(20)]),
        processing_class=tokenizer(),
    )
    tell(digest(go(trainer).model))


@case(
    "grpo-within-a-generation",
    "GRPO with completions that are used over eight steps, saved and killed between",
    "the weights of an unbroken run, or a line that numbers may differ",
    needs=("datasets", "trl"),
    quick=False,
)
def grpo_within_a_generation(bench: Bench) -> Verdict:
    expected = bench.play(grpo, "unbroken")
    bench.play(grpo, die=[7, 6])
    done = bench.play(grpo, "b")
    equal, said = expected.found is not None and done.found == expected.found, bool(done.said("may differ"))
    why = "" if expected.found else f", {expected.last[:100]}"
    return Verdict(
        equal or (said and bench.ours), f"exit {done.code}, weights equal: {equal}, said: {said}{why}"
    )
