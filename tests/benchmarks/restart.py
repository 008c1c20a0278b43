"""Part g: what a death costs under `vl run`: from the kill to the next step, over a cold start's time to its first."""

from __future__ import annotations

import statistics
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Row, median_ratio
from tests.run.programs import Ran, torchrun, vl_run

GOAL = 0.15

_KILLED = """
import os, time

def stepped(step, rank=0):
    with open("steps", "a") as file:
        file.write(f"{time.time()} {step} {os.getpid()}\\n")
    first = not os.path.exists("killed")
    if first and step >= 4 and rank == 0:
        end = time.monotonic() + 300
        wanted = 2 if "RANK" in os.environ else 1  # the launcher's, and the ranks'
        while open(".vl/journal.jsonl").read().count("is kept ready") < wanted and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1)
        open("killed", "w").write(str(time.time()))
        os.kill(os.getpid(), 9)
    time.sleep(0.1)
"""

_TRAINER = """
import torch
torch.set_num_threads(1)
from transformers import Trainer, TrainerCallback, TrainingArguments
from tests.kit.models import tiny_llama

class Each(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        stepped(state.global_step, int(os.environ.get("RANK", "0")))

rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (40, 8))]
args = TrainingArguments(
    "out", max_steps=12, save_steps=2, per_device_train_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True,
    dataloader_pin_memory=False, ddp_backend="gloo" if "RANK" in os.environ else None,
)
Trainer(model=tiny_llama(), args=args, train_dataset=rows, callbacks=[Each()]).train()
"""

_ACCELERATE = """
import torch
torch.set_num_threads(1)
from accelerate import Accelerator
from vaultlayer_hf import Checkpointer

accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(8, 8)
optimizer = torch.optim.AdamW(model.parameters())
loader = torch.utils.data.DataLoader(torch.rand(96, 8), batch_size=4, shuffle=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
ckpt = Checkpointer(os.environ["VAULTLAYER_VAULT"], accelerator=accelerator, save_every="2 steps")
for step, batch in ckpt.steps(loader, start=ckpt.resume(), total=12):
    accelerator.backward(model(batch).square().mean())
    optimizer.step()
    optimizer.zero_grad()
    ckpt.step()
    stepped(step + 1)
ckpt.finish()
"""

_PLAIN = """
import torch
torch.set_num_threads(1)
from vaultlayer_hf import Checkpointer

model = torch.nn.Linear(8, 8)
optimizer = torch.optim.AdamW(model.parameters())
ckpt = Checkpointer(os.environ["VAULTLAYER_VAULT"], model=model, optimizer=optimizer, save_every="2 steps")
for step in range(ckpt.resume(), 12):
    model(torch.rand(4, 8)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    ckpt.step()
    stepped(step + 1)
ckpt.finish()
"""

_SCRIPT = (sys.executable, "train.py")
PROGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Trainer": (_TRAINER, _SCRIPT),
    "Accelerate loop": (_ACCELERATE, _SCRIPT),
    "plain loop": (_PLAIN, _SCRIPT),
    "Trainer, 2 ranks by torchrun": (_TRAINER, (*torchrun(2), "train.py")),
}


def measure(work: Path, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Kill each program once a round, and time its first start and its restart."""
    rows = []
    for name, (script, command) in PROGRAMS.items():
        cold: list[float] = []
        warm: list[float] = []
        stages: list[list[dict[str, float]]] = []
        for number in range(rounds):
            folder = work / f"{len(rows)}-{number}"
            folder.mkdir(parents=True)
            ran = vl_run(
                folder, *command, script=textwrap.dedent(_KILLED + script), spare=True, timeout=600.0
            )
            first, after = _seconds(ran)
            cold.append(first)
            warm.append(after)
            if name == "Trainer":
                stages.append([_stages(ran, attempt) for attempt in (1, 2)])
            say(f"{name}: {after:.2f} s from the kill to the next step, {first:.2f} s cold")
        ratio = median_ratio(warm, cold)
        single = "ranks" not in name
        text = f"{ratio:.2f} times a cold start's {statistics.median(cold):.2f} s to its first step"
        rows.append(
            Row(
                "g",
                "from a kill to the next step",
                name,
                f"{statistics.median(warm):.2f} s",
                text,
                f"<= {GOAL}" if single else "",
                ratio <= GOAL if single else None,
            )
        )
        if stages:
            rows += _rows_of_stages(stages)
    return rows


def _seconds(ran: Ran) -> tuple[float, float]:
    """Return how long the first start took to its first step, and the kill to the next step."""
    assert ran.code == 0, ran.err
    steps = [line.split() for line in (ran.folder / "steps").read_text().splitlines()]
    killed = float((ran.folder / "killed").read_text())
    begin = ran.lines("start")[0]["time"]
    return float(steps[0][0]) - begin, min(
        float(line[0]) for line in steps if float(line[0]) > killed
    ) - killed


def _stages(ran: Ran, attempt: int) -> dict[str, float]:
    """Return how long each stage of an attempt's start took, in seconds, in order."""
    begin = ran.lines("start")[attempt - 1]["time"]
    killed = float((ran.folder / "killed").read_text())
    steps = [float(line.split()[0]) for line in (ran.folder / "steps").read_text().splitlines()]
    notes = {kind: ran.notes(attempt, kind) for kind in ("hooked", "vault", "train")}
    events = {note["event"]: note["time"] for note in reversed(notes["vault"])}
    moments: list[tuple[str, Any]] = [
        ("vl run: death to start", begin - killed if attempt == 2 else 0.0),
        ("Python, imports up to Trainer", notes["hooked"][0]["time"]),
        ("more imports, model, data, claim", events["claim"]),
        (
            "discovery, restore or adoption",
            events.get("restore") or events.get("adopt") or events.get("fresh"),
        ),
        ("loading it into the Trainer, data skip", notes["train"][0]["time"]),
        ("first batch and step", next(one for one in steps if one > begin)),
    ]
    found, last = {moments[0][0]: moments[0][1]}, begin
    for name, moment in moments[1:]:
        found[name] = (moment or last) - last
        last = moment or last
    return found


def _rows_of_stages(stages: list[list[dict[str, float]]]) -> list[Row]:
    rows = []
    for name in stages[0][0]:
        cold, warm = (statistics.median(one[which][name] for one in stages) for which in (0, 1))
        rows.append(
            Row(
                "g",
                "stages of a Trainer's restart",
                name,
                f"{warm * 1000:.0f} ms",
                f"cold {cold * 1000:.0f} ms",
            )
        )
    return rows
