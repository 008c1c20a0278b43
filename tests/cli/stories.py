"""A run folder as `vl run` keeps it, written by its own code: three attempts with two deaths, on a vault of its own."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from unittest import mock

from vaultlayer_hf.run.journal import OUTPUT, Journal, append
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.log import log as log_module
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.log.log import Log, Writer

ATTEMPTS = [  # begins, goes on from, reaches, cause, its sentence, commits
    (0.0, 0, 430, "killed", "rank 0 was killed by SIGKILL", (100, 200, 300, 400)),
    (300.0, 400, 760, "memory", "CUDA out of memory at step 761 <of 1000>", (500, 600, 700)),
    (560.0, 700, 1000, "finished", "trained to the end", (800, 900, 1000)),
]
"""Half a second a step after ten seconds of start."""
LOST = 30 + 60
MAX_STEPS = 1000


def a_run(folder: Path, *, begin: float | None = None, alive: bool = False) -> tuple[Path, Path]:
    """Write it below ``folder``; return the run folder and the vault. ``alive``: the last attempt is under way."""
    begin = time.time() - 900 if begin is None else begin
    vault, run = folder / "vault", folder / ".vl"
    journal = Journal(run)
    store = open_store(str(vault))

    def say(moment: float, kind: str, **fields: object) -> None:
        with mock.patch("time.time", return_value=begin + moment):
            journal.write(kind, **fields)

    def at(moment: float) -> str:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begin + moment))
        return f"{text}.000Z"

    say(-1, "begin", format_version=1, command=["python", "train.py"], cwd=str(folder), vault=f"file://{vault}",
        vault_source="option", pid=1 if alive else 2**30, host="elsewhere", vl="0.1.0")  # fmt: skip
    for start, first, last, cause, detail, commits in ATTEMPTS:
        path = journal.new_attempt()
        (path / OUTPUT).write_text(f"attempt {journal.attempt}\n" + "".join(f"line {n}\n" for n in range(5)))
        say(start, "start", pid=1, folder=path.name, divide=1, at=None)
        with mock.patch.object(log_module, "now", return_value=at(start + 2)):
            writer, _ = Writer.claim(store, Log(store))
        notes = path / "rank-0.jsonl"
        append(notes, {"time": begin + start + 4, "kind": "hooked", "pid": 1})
        append(
            notes,
            {"time": begin + start + 10, "kind": "train", "step": first, "max_steps": MAX_STEPS, "pid": 1},
        )
        append(notes, {"time": begin + start + 10.5, "kind": "first-step", "step": first + 1})
        for step in range(first + 10, last + 1, 10):
            moment = start + 10 + (step - first) / 2
            line = {"loss": 2 + 3 * math.exp(-step / 300)}
            append(notes, {"time": begin + moment, "kind": "log", "step": step, **line})
            if step in commits:
                commit_at(writer, step, at(moment + 4))
        end = start + 10 + (last - first) / 2 + 3
        pulse = {"time": begin + end - 3, "step": last, "phase": "train", "beats": 9}
        if cause == "finished" and alive:
            (path / "rank-0.beat").write_text(json.dumps({**pulse, "time": time.time()}))
            break
        (path / "rank-0.beat").write_text(json.dumps(pulse))
        say(end, "death", cause=cause, code=None if cause == "killed" else 1, signal="SIGKILL", seconds=end - start,
            step=last, began_at=first, committed=commits[-1], error="", rank=0, detail=detail,
            traceback="")  # fmt: skip
        say(end, "decision", action="done" if cause == "finished" else "restart",
            reason="as decided", wait=5.0, divide=1, at=None)  # fmt: skip
    if not alive:
        with mock.patch.object(log_module, "now", return_value=at(end)):
            writer.append("finish", lambda state, _: state.done(MAX_STEPS, {}), {"step": MAX_STEPS})
        say(end, "end", code=0, reason="the training has finished", attempts=3, step=MAX_STEPS, seconds=end)
    return run, vault


def commit_at(writer: Writer, step: int, moment: str) -> None:
    """Append a commit of a checkpoint that nobody will read."""

    def change(state, number: int):
        commit = Commit(
            number, writer.token, step, step, f"data/{writer.token}/checkpoint-{step}", moment, 10**6, 8,
            "blake3:" + "0" * 64, 100,
        )  # fmt: skip
        return state.committed(commit, resumed_from=None, best_step=None)

    with mock.patch.object(log_module, "now", return_value=moment):
        writer.append("commit", change, {"step": step, "stall": 0.004 + 0.001 * (step // 100 % 3)})
