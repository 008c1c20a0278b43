"""Part h: what a save costs a training, by the way in which it is made: the stall, and the whole run's time.

The stall alone says too little: what is written beside the training takes processor time from it. So each way trains
the same steps, with a save every EVERY of them and one at the end, as the Trainer has it. On a shared machine the whole
times of two runs differ by more than saves cost, so what saves add is found within each run: the time of all steps
behind the first save, less as many undisturbed ones, each the median of the last steps ahead of a save; and the time
of the end. The speed while the background works is that of the BEHIND steps behind a save, by the same measure.
Then how such a file is written: through the page cache or past it, by a thread or by a process of lowest priority.
Run as ``python -m tests.benchmarks.beside WAY OUTPUT MEGABYTES SAVES THREADS``.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Row, child, done, ready
from tests.benchmarks.model import Tokens, small_llama

EVERY = 10
"""Steps between two saves."""
BEHIND, AHEAD = 5, 4
"""Steps behind a save, beside which it is written; steps ahead of the next one, by when it is."""
NOTHING, STOCK, SYNC, BESIDE = "no saves", "stock Trainer", "ours, async_save=off", "ours, async_save=auto"
DCP, STAGED, PINNED = (
    "torch DCP async_save",
    "torch DCP async_save, staged in shared memory",
    "torch DCP async_save, staged in pinned memory",
)
COPY = "a plain copy of the state"
WAYS = (NOTHING, STOCK, SYNC, BESIDE, DCP, STAGED, PINNED, COPY)
STALL_GOAL, TIME_GOAL, SPEED_GOAL = 0.02, 0.25, 0.93
"""Of the stock save's stall; of what stock's saves add to the whole time; of the speed alone, with one core left."""
BF16_FROM = 2000
"""MB of float32 parameters from which a model is trained in bf16: 3 times as much has to fit into memory twice."""


def ways() -> tuple[str, ...]:
    """Return the ways that this machine has: pinned memory needs a GPU."""
    import torch

    return tuple(way for way in WAYS if way != PINNED or torch.cuda.is_available())


def train(way: str, output: str, megabytes: int, saves: int, threads: int) -> dict[str, Any]:
    """Train; return seconds of each gap with a save, of the others, of each step with the gap ahead of it, and more."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    gaps: list[float] = []
    others: list[float] = []
    steps: list[float] = []
    marks: dict[str, float] = {}
    base: Any = transformers.Trainer
    extra: dict[str, Any] = {}
    if way in (SYNC, BESIDE):
        import vaultlayer_hf

        base = vaultlayer_hf.Trainer
        mode: Any = "auto" if way == BESIDE else "off"
        extra = {"resume": vaultlayer_hf.Settings(vault=f"{output}-vault", async_save=mode, keep_last=1)}

    class Clock(transformers.TrainerCallback):
        """Notes the ends of steps. Made of transformers' own class, it is the stock clock of any training."""

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            now = time.perf_counter()
            steps.append(now - marks.get("end", now))
            marks["end"] = now

    class Timed(base):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            if "end" in marks:
                step = self.state.global_step
                (others if step % EVERY else gaps).append(time.perf_counter() - marks["end"])
            return super().compute_loss(*args, **kwargs)

    by_stock = way in (STOCK, SYNC, BESIDE)
    arguments = transformers.TrainingArguments(
        output, use_cpu=True, max_steps=(saves + 1) * EVERY - 1, save_steps=EVERY, save_total_limit=2,
        save_strategy="steps" if by_stock else "no", per_device_train_batch_size=2, report_to="none",
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    model = small_llama(megabytes)
    trainer = Timed(
        model=model.to(torch.bfloat16) if megabytes >= BF16_FROM else model,
        args=arguments,
        train_dataset=Tokens(64, 512),
        callbacks=[Clock(), *_by_callback(way, output)],
        **extra,
    )
    ready()
    begin = time.perf_counter()
    processor = time.process_time()
    trainer.train()
    return {
        "gaps": gaps,
        "others": others,
        "steps": steps,
        "end": time.perf_counter() - marks["end"],
        "seconds": time.perf_counter() - begin,
        "processor": time.process_time() - processor,
    }


def _by_callback(way: str, output: str) -> list[Any]:
    """Return the callback that saves in a way that isn't the Trainer's."""
    import torch
    import torch.distributed.checkpoint as dcp
    import transformers
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    gpu = torch.cuda.is_available()
    options = StagingOptions(
        way == PINNED, way in (STAGED, PINNED), gpu and way == PINNED, gpu and way == PINNED
    )
    stager: dict[str, Any] = {} if way == DCP else {"async_stager": DefaultStager(options)}

    class Dcp(transformers.TrainerCallback):
        """torch's own asynchronous save, one in flight, as its documentation has it."""

        under_way: Any = None

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % EVERY == 0 or state.global_step == state.max_steps:
                self.on_train_end(args, state, control)
                held = {"model": kwargs["model"].state_dict(), "optimizer": kwargs["optimizer"].state_dict()}
                os.makedirs(output, exist_ok=True)
                self.under_way = dcp.async_save(
                    held, checkpoint_id=f"{output}/dcp-{state.global_step}", **stager
                )

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.under_way is not None:
                # With a stager there are two things to wait for: the staging, and the upload behind it.
                getattr(self.under_way, "upload_completion", self.under_way).result()

    class Copy(transformers.TrainerCallback):
        """The limit: the bytes copied into memory that is there."""

        to: list[Any] = []  # noqa: RUF012

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            optimizer = kwargs["optimizer"].optimizer
            held = [one.detach() for one in kwargs["model"].parameters()]
            held += [one for each in optimizer.state.values() for one in each.values()]
            if not self.to:
                self.to += [one.clone() for one in held]
            if state.global_step % EVERY == 0 or state.global_step == state.max_steps:
                torch._foreach_copy_(self.to, held)

    if way in (DCP, STAGED, PINNED):
        return [Dcp()]
    return [Copy()] if way == COPY else []


def measure(
    work: Path,
    sizes: Sequence[int],
    saves: int,
    rounds: int,
    threads: tuple[int, ...],
    say: Callable[[str], None],
) -> list[Row]:
    """Run the ways alternately and return their rows; the first save of each run only warms up."""
    rows: list[Row] = []
    for megabytes in sizes:
        for count in threads:
            runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways()}
            for number in range(rounds):
                for way, found in runs.items():
                    output = work / "output"
                    one = child(
                        "beside", way, str(output), str(megabytes), str(saves), str(count), timeout=600
                    )
                    shutil.rmtree(output, ignore_errors=True)
                    shutil.rmtree(f"{output}-vault", ignore_errors=True)
                    found.append(one)
                    stalls = [round(gap, 3) for gap in one["gaps"]]
                    say(f"{way}, {megabytes} MB, round {number}: {one['seconds']:.1f} s, saves {stalls}")
            rows += _rows(runs, megabytes, count)
    return rows


def _cycles(run: dict[str, Any]) -> list[tuple[float, float]]:
    """Return of each cycle but the first, which only warms up: seconds lost to its save, and the speed behind it."""
    found = []
    for number, begin in enumerate(range(EVERY, len(run["steps"]) - EVERY + 2, EVERY)):
        steps = run["steps"][begin : begin + EVERY]
        undisturbed = statistics.median(steps[-AHEAD:])
        behind = sum(steps[:BEHIND]) - run["gaps"][number]
        found.append((sum(steps) - len(steps) * undisturbed, undisturbed * BEHIND / behind))
    return found[1:]


def _rows(runs: dict[str, list[dict[str, Any]]], megabytes: int, threads: int) -> list[Row]:
    def stall(way: str, number: int) -> float:
        one = runs[way][number]
        return max(1e-6, statistics.median(one["gaps"][1:]) - statistics.median(one["others"]))

    def added(way: str, number: int) -> float:
        """The median over cycles, each from a save to the next, times the saves; and the last save."""
        one, alone = runs[way][number], runs[NOTHING][number]
        cycles = [lost for lost, _ in _cycles(one)]
        return statistics.median(cycles) * len(cycles) + one["end"] - float(alone["end"])

    def speed(way: str, number: int) -> float:
        return statistics.median(pace for _, pace in _cycles(runs[way][number]))

    count = len(runs[STOCK])
    rows = []
    for way in list(runs)[1:]:
        stalls = statistics.median(stall(way, number) for number in range(count))
        share = statistics.median(stall(way, number) / stall(STOCK, number) for number in range(count))
        whole = statistics.median(added(way, number) for number in range(count))
        part = statistics.median(added(way, number) / added(STOCK, number) for number in range(count))
        pace = statistics.median(speed(way, number) for number in range(count))
        ours, spare = way == BESIDE, threads < (os.cpu_count() or 1)
        rows.append(
            Row(
                "h",
                f"{megabytes // 4}M parameters{' in bf16' if megabytes >= BF16_FROM else ''}, "
                f"torch threads {threads} of {os.cpu_count()}",
                way,
                f"stall {stalls * 1e3:.0f} ms; all saves {whole:+.2f} s",
                f"{share:.3f} of stock's stall; {part:.2f} of what stock adds; steps behind at {pace:.2f} speed",
                f"<= {STALL_GOAL} and {TIME_GOAL}{f'; >= {SPEED_GOAL}' if spare else ''}" if ours else "",
                share <= STALL_GOAL and part <= TIME_GOAL and (not spare or pace >= SPEED_GOAL)
                if ours
                else None,
                statistics.median(one["growth"] for one in runs[way]) / 1e6,
            )
        )
    return rows


if __name__ == "__main__":
    way, folder, size, times, cores = sys.argv[1:]
    done(**train(way, folder, int(size), int(times), int(cores)))
