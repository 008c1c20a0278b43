"""Cases of a process that is told to end, and of one that is killed behind a save."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests import ROOT
from tests.cases.case import NOTHING, Bench, Verdict, case, tell
from tests.cases.training import doing, go, made
from tests.servers import die_with_parent
from tests.trainer.kit import big_model, steps_of, wait_for
from vaultlayer_hf import Settings


def evaluating(side: str, out: str, vault: str | None) -> None:
    """An evaluation of a minute, at step 5; two seconds into it SIGTERM is sent, and the kill comes ten later."""
    from tests.cases.training import ROWS

    def slow(_: Any) -> dict[str, float]:
        Path(f"{out}-evaluating").touch()
        time.sleep(60)
        return {"x": 1.0}

    trainer = made(
        side,
        out,
        vault,
        settings=Settings(vault=vault, grace=10) if vault else None,
        max_steps=12,
        save_steps=100,
        eval_strategy="steps",
        eval_steps=5,
        eval_dataset=ROWS[:2],
        compute_metrics=slow,
    )
    go(trainer)


def _begin(bench: Bench, code: str, log: Path, *prefix: str, **env: str) -> subprocess.Popen[bytes]:
    """Start a statement in a Python of its own, which a signal can be sent to."""
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, *prefix, str(_written(bench.folder / "run.py", code))],
            cwd=bench.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
                "VAULTLAYER_NOTICES": "none",
                **env,
            },
            stdout=file,
            stderr=file,
            preexec_fn=die_with_parent,
        )


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@case(
    "term-in-evaluation",
    "SIGTERM in a long evaluation, with ten seconds of grace; no save in the last steps",
    "the state between two steps is saved at once: the vault holds the step of the evaluation",
    quick=False,
)
def term_in_evaluation(bench: Bench) -> Verdict:
    out = bench.folder / "a"
    vault = repr(bench.vault) if bench.ours else None
    code = f"from tests.cases.told import evaluating\nevaluating({bench.side!r}, {str(out)!r}, {vault})\n"
    run = _begin(bench, code, bench.folder / "log")
    wait_for(lambda: Path(f"{out}-evaluating").exists() or run.poll() is not None, 120)
    time.sleep(2)
    run.terminate()
    try:
        code_ = run.wait(10)
    except subprocess.TimeoutExpired:
        run.kill()
        code_ = run.wait()
    held = steps_of(bench.vault) if bench.ours else [5] if (out / "checkpoint-5").exists() else []
    return Verdict(held == [5], f"exit {code_}, holds {held}")


def two_ranks(side: str, out: str, vault: str | None) -> None:
    """One of two ranks under torchrun, with steps of 0.1 s."""

    def step(state: Any) -> None:
        time.sleep(0.1)
        if state.global_step == 5:
            Path(f"{out}-pid-{os.getpid()}").touch()

    go(
        made(
            side,
            out,
            vault,
            callbacks=[doing(on_step_end=step)],
            max_steps=300,
            save_steps=1000,
            ddp_backend="gloo",
        )
    )


@case(
    "usr1-under-torchrun",
    "Slurm's SIGUSR1 to torchrun and its two ranks at once, with both told of it as the README says",
    "both ranks save at one step and end by themselves, none is left behind",
    quick=False,
)
def usr1_under_torchrun(bench: Bench) -> Verdict:
    if not bench.ours:
        return NOTHING
    out = bench.folder / "a"
    code = f"from tests.cases.told import two_ranks\ntwo_ranks('ours', {str(out)!r}, {bench.vault!r})\n"
    run = _begin(
        bench,
        code,
        bench.folder / "log",
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *_signals_to_handle()),
        VAULTLAYER_SIGNALS="SIGTERM,SIGINT,SIGUSR1",
        VAULTLAYER_GRACE="20",
        TORCHELASTIC_SIGNALS_TO_HANDLE="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    )
    wait_for(
        lambda: len(list(bench.folder.glob("a-pid-*"))) == 2 or run.poll() is not None,
        150,
    )
    pids = [int(path.name.rpartition("-")[2]) for path in bench.folder.glob("a-pid-*")]
    workers = [psutil.Process(pid) for pid in pids]
    for pid in (run.pid, *pids):
        os.kill(pid, signal.SIGUSR1)
    code_ = run.wait(90)
    left = [one.pid for one in psutil.wait_procs(workers, 10)[1]]
    for one in left:
        os.kill(one, signal.SIGKILL)
    held = steps_of(bench.vault)
    return Verdict(
        len(held) == 1 and not left,
        f"torchrun ended with {code_}, {len(left)} ranks left, vault holds {held}",
    )


def _signals_to_handle() -> list[str]:
    """Return the option that has torchrun take the signal; older releases know only the variable."""
    from torch.distributed.run import get_args_parser

    known = "--signals-to-handle" in get_args_parser().format_help()
    return ["--signals-to-handle=SIGTERM,SIGINT,SIGUSR1"] if known else []


def killed(
    side: str,
    out: str,
    vault: str | None,
    at: int,
    large: bool = False,
    slow: bool = False,
    pace: float = 0.0,
) -> None:
    """Saves every four steps, and is killed at the end of one."""

    def end(state: Any) -> None:
        time.sleep(pace)
        if state.global_step == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def begin(state: Any) -> None:
        tell(state.global_step)
        if at == 0:
            os._exit(0)

    # What is written beside the training isn't on the disk yet: a kill right behind the save costs it.
    settings = Settings(vault=vault, async_save="off", bandwidth="100KB" if slow else None) if vault else None
    go(
        made(
            side,
            out,
            vault,
            settings=settings,
            callbacks=[doing(on_train_begin=begin, on_step_end=end)],
            max_steps=16,
            save_steps=4,
            **({"model": big_model()} if large else {}),
        )
    )


def _behind(bench: Bench, at: int, step: int, **more: Any) -> Verdict:
    begun = []
    for number in range(4):  # it hangs on milliseconds
        bench.play(killed, f"{number}", at=at, vault_at=f"vault-{number}", **more)
        begun.append(bench.play(killed, f"{number}", at=0, vault_at=f"vault-{number}", **more).found)
    return Verdict(begun == [step] * 4, f"whole on the disk: {step}, went on from {begun}")


@case(
    "killed-behind-a-save",
    "SIGKILL at the end of step 11, three steps of 10 ms behind a save; four times",
    "it goes on from 8, which is whole on the disk",
)
def killed_behind_a_save(bench: Bench) -> Verdict:
    return _behind(bench, 11, 8, pace=0.01)


@case(
    "killed-behind-the-first-save",
    "SIGKILL one step behind the first save, on a vault of 100 kB/s; four times",
    "it goes on from 4, which is whole on the disk, and never from 0",
)
def killed_behind_the_first_save(bench: Bench) -> Verdict:
    return _behind(bench, 5, 4, large=True, slow=True)


@case(
    "killed-behind-a-large-save",
    "the same of files of megabytes, without a cap; four times",
    "it goes on from 4, which is whole on the disk, and never from 0",
)
def killed_behind_a_large_save(bench: Bench) -> Verdict:
    return _behind(bench, 5, 4, large=True)


def loop(side: str, out: str, vault: str | None, at: int) -> None:
    """A Checkpointer's loop with a model of 9 MB that is killed behind a save."""
    import torch

    from vaultlayer_hf import Checkpointer

    assert vault is not None
    torch.manual_seed(0)
    model = torch.nn.Linear(1500, 1500)
    optimizer = torch.optim.AdamW(model.parameters())
    settings = Settings(vault=vault, async_save="off")
    ckpt = Checkpointer(settings, model=model, optimizer=optimizer, save_every="4 steps", output_dir=out)
    begun = ckpt.resume()
    tell(begun)
    if at == 0:
        os._exit(0)
    for step in range(begun, 16):
        loss = model(torch.ones(2, 1500)).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        time.sleep(0.01)
        ckpt.step(loss=loss)
        if step + 1 == at:
            os.kill(os.getpid(), signal.SIGKILL)


@case(
    "loop-killed-behind-a-save",
    "a Checkpointer's loop with a model of 9 MB is killed three steps behind a save; four times",
    "it goes on from 8, which is whole on the disk",
)
def loop_killed_behind_a_save(bench: Bench) -> Verdict:
    if not bench.ours:
        return NOTHING
    begun = []
    for number in range(4):
        bench.play(loop, f"{number}", at=11, vault_at=f"vault-{number}")
        begun.append(bench.play(loop, f"{number}", at=0, vault_at=f"vault-{number}").found)
    return Verdict(begun == [8] * 4, f"whole on the disk: 8, went on from {begun}")
