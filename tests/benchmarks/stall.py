"""Part b: how much longer the training thread stands still for a save with a vault than without.

The gap is the time from the end of one optimizer step (``on_optimizer_step``) to the start of the next forward
pass, which is where saves happen. A stock save of some hundred MB takes a second, give or take more than the
20 ms of the goal; so what is added is measured beside it: the gap minus the seconds inside transformers' own
``Trainer._save_checkpoint``, with the vault, minus the same without. Whole gaps stand in the table too.
Run as ``python -m tests.benchmarks.stall VAULT OUTPUT MEGABYTES SAVES PAUSE``; VAULT ``-`` is the stock Trainer.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Row, child, done, ready
from tests.benchmarks.model import Tokens, small_llama
from tests.benchmarks.servers import BUCKET, environment, seaweedfs

EVERY = 4
"""Steps between two saves."""
GOAL = 0.020
"""Seconds that a save may add."""


def train(vault: str, output: str, megabytes: int, saves: int, pause: float) -> dict[str, list[float]]:
    """Train with a save every EVERY steps; return seconds of gaps with a save, of the stock save within, and others."""
    import torch
    import transformers

    torch.set_num_threads(1)
    inner: list[float] = []
    stock = transformers.Trainer._save_checkpoint

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return stock(self, *args, **kwargs)
        finally:
            inner.append(time.perf_counter() - began)

    transformers.Trainer._save_checkpoint = timed
    if vault == "-":
        base: Any = transformers.Trainer
        extra: dict[str, Any] = {}
    else:
        import vaultlayer_hf

        base, extra = vaultlayer_hf.Trainer, {"resume": vault}
    gaps: list[float] = []
    others: list[float] = []
    marks: dict[str, float] = {}

    class Clock(transformers.TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            marks["end"] = time.perf_counter()

    class Timed(base):  # type: ignore[misc]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if "end" in marks:
                step = self.state.global_step
                (others if step % EVERY else gaps).append(time.perf_counter() - marks["end"])
                if step % EVERY == 1:
                    time.sleep(pause)  # the upload ends here: a run saves every some minutes
            return super().training_step(*args, **kwargs)

    arguments = transformers.TrainingArguments(
        output, use_cpu=True, max_steps=saves * EVERY + 2, save_steps=EVERY, save_total_limit=2,
        per_device_train_batch_size=1, report_to="none", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    trainer = Timed(
        model=small_llama(megabytes),
        args=arguments,
        train_dataset=Tokens(32, 512),
        callbacks=[Clock()],
        **extra,
    )
    ready()
    trainer.train()
    return {"gaps": gaps, "inner": inner[: len(gaps)], "others": others}


def measure(
    work: Path, megabytes: int, saves: int, rounds: int, pause: float, say: Callable[[str], None]
) -> list[Row]:
    """Run the three ways alternately and return their rows; the first save of each run only warms up."""
    runs: dict[str, list[dict[str, Any]]] = {"stock Trainer": [], "folder vault": [], "S3 vault": []}
    with seaweedfs(work / "seaweedfs") as endpoint:
        for number in range(rounds):
            for name, found in runs.items():
                vaults = {
                    "stock Trainer": "-",
                    "folder vault": str(work / "vault"),
                    "S3 vault": f"s3://{BUCKET}/{number}",
                }
                output = work / "output"
                result = child(
                    "stall",
                    vaults[name],
                    str(output),
                    str(megabytes),
                    str(saves),
                    str(pause),
                    extra=environment(endpoint),
                )
                shutil.rmtree(output)
                shutil.rmtree(work / "vault", ignore_errors=True)
                found.append(result)
                say(f"{name} round {number}: gaps {[round(g, 3) for g in result['gaps']]}")
    beside = {
        name: [g - i for run in found for g, i in zip(run["gaps"][1:], run["inner"][1:], strict=True)]
        for name, found in runs.items()
    }
    whole = {name: [gap for run in found for gap in run["gaps"][1:]] for name, found in runs.items()}
    plain = {name: [gap for run in found for gap in run["others"]] for name, found in runs.items()}
    base = "stock Trainer"
    rows = []
    for name in runs:
        added = statistics.median(beside[name]) - statistics.median(beside[base])
        worst = max(beside[name]) - statistics.median(beside[base])
        step = statistics.median(plain[name]) - statistics.median(plain[base])
        text = f"adds {added * 1e3:.1f} ms, at worst {worst * 1e3:.1f}; {step * 1e3:.1f} to a step without a save"
        rows.append(
            Row(
                "b",
                f"stall of a save, {megabytes} MB model, {3 * megabytes} MB checkpoint",
                name,
                f"{statistics.median(whole[name]) * 1e3:.0f} ms in all",
                "" if name == base else text,
                "" if name == base else "adds <= 20 ms",
                None if name == base else added <= GOAL,
            )
        )
    return rows


if __name__ == "__main__":
    where, folder, size, count, rest = sys.argv[1:]
    done(**train(where, folder, int(size), int(count), float(rest)))
