"""Cases of scripts that know nothing of this package: edited by `vl init`, or run by `vl run`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.cases.case import NOTHING, Bench, Verdict, case
from tests.run.programs import environment

UNSEEDED = textwrap.dedent(
    """
    import os, time, torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset, random_split

    rows = TensorDataset(torch.arange(160.0).view(40, 4) / 160)
    train, held_out = random_split(rows, [32, 8])
    print("held out", sorted(held_out.indices))
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(train, batch_size=4, shuffle=True)
    for epoch in range(4):
        for number, (batch,) in enumerate(loader):
            loss = model(batch).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            time.sleep(0.05)
            if os.environ.get("DIE") == f"{epoch} {number}":
                os.kill(os.getpid(), 9)
    print("end")
    """
)
UNFREEZES = textwrap.dedent(
    """
    import os, time, torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.rand(40, 4)), batch_size=4, shuffle=True)
    for epoch in range(5):
        if epoch == 1:
            for parameter in model[0].parameters():
                parameter.requires_grad = True
        for number, (batch,) in enumerate(loader):
            loss = model(batch).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            time.sleep(0.05)
            if os.environ.get("DIE") == f"{epoch} {number}":
                os.kill(os.getpid(), 9)
    print("end", model[0].weight[0].tolist(), model[0].weight.requires_grad)
    """
)
NOT_EMPTY = textwrap.dedent(
    """
    import os, signal, torch
    from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
    from transformers.trainer_utils import get_last_checkpoint
    from tests.kit.models import tiny_llama

    class Once(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            os.makedirs("out/runs", exist_ok=True)
            open("out/runs/events.log", "w").close()  # as trackers write it

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1 and not os.path.exists("killed"):
                open("killed", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)

    last = get_last_checkpoint("out") if os.path.isdir("out") else None
    if last is None and os.path.isdir("out") and os.listdir("out"):
        raise ValueError(f"Output directory (out) already exists and is not empty: {os.listdir('out')}")
    set_seed(0)
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (20, 8))]
    args = TrainingArguments(
        "out", max_steps=6, save_steps=3, use_cpu=True, report_to=[], disable_tqdm=True,
        per_device_train_batch_size=2, dataloader_pin_memory=False,
    )
    Trainer(model=tiny_llama(), args=args, train_dataset=rows, callbacks=[Once()]).train(resume_from_checkpoint=last)
    """
)


def _call(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(**env), capture_output=True, text=True, timeout=240
    )


def _edited(bench: Bench, script: str, die: str) -> tuple[str, str, str, str]:
    """Edit a script with `vl init`, run it whole, and killed and started again on another disk.

    Returns what `vl init` has said, what the whole run and the resumed one have printed, and the log of the latter.
    """
    whole, broken = bench.folder / "whole", bench.folder / "broken"
    whole.mkdir()
    (whole / "train.py").write_text(script)
    init = _call(
        whole, sys.executable, "-m", "vaultlayer_hf.cli", "init", "train.py", "--vault", "vault", "--yes"
    )
    shutil.copytree(whole, broken)
    expected = _call(whole, sys.executable, "train.py").stdout
    first = _call(broken, sys.executable, "train.py", DIE=die)
    for path in broken.glob("checkpoints-*"):
        shutil.rmtree(path)
    done = _call(broken, sys.executable, "train.py")
    return init.stdout + init.stderr, expected, done.stdout, first.stderr + done.stderr


@case(
    "unseeded-split",
    "`vl init` on a loop whose random_split has no seed: which rows are held out is drawn anew at each start",
    "it is said when the script is edited, or at the resume; or the script is left alone",
    quick=False,
)
def unseeded_split(bench: Bench) -> Verdict:
    if not bench.ours:
        return NOTHING
    init, _, done, log = _edited(bench, UNSEEDED, "1 5")
    said = any(word in (init + log).lower() for word in ("seed", "split", "drawn"))
    return Verdict(said and "end" in done, f"said: {said}, ended: {'end' in done}")


@case(
    "unfreezes-later",
    "`vl init` on a loop that lets frozen layers go in its second epoch; killed in its third",
    "the weights of an unbroken run; or it is said, or the script is left alone",
    quick=False,
)
def unfreezes_later(bench: Bench) -> Verdict:
    if not bench.ours:
        return NOTHING
    init, expected, done, log = _edited(bench, UNFREEZES, "2 5")
    said = any(word in init + log for word in ("requires_grad", "frozen"))
    equal = done == expected and done.startswith("end")
    return Verdict(equal or said, f"weights equal: {equal}, said: {said}, ends {done.strip()[-12:]!r}")


@case(
    "output-not-empty",
    "a script that wants an empty output_dir is killed before its first checkpoint, and started again",
    "it trains, and ends with exit code 0",
    quick=False,
)
def output_not_empty(bench: Bench) -> Verdict:
    (bench.folder / "train.py").write_text(NOT_EMPTY)
    if bench.ours:
        command = [sys.executable, "-m", "vaultlayer_hf.cli", "run", "--backoff", "0", "--"]
        done = _call(bench.folder, *command, sys.executable, "train.py")
    else:
        _call(bench.folder, sys.executable, "train.py")
        done = _call(bench.folder, sys.executable, "train.py")
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return Verdict(
        done.returncode == 0, f"exit {done.returncode}" + (f", {last[:90]}" if done.returncode else "")
    )
