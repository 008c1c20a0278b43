"""The import hook: where it reaches, what it leaves alone, and that a process without a Trainer doesn't pay."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run.programs import environment
from vaultlayer_hf.run.engines.reach import STARTUP, Lookout, why_unreached
from vaultlayer_hf.run.journal import read_beats, read_notes

MODULES = "import sys, json; print(json.dumps(sorted(sys.modules)))"


def python(code: str, *options: str, path: tuple[Path, ...] = (), **more: str) -> str:
    """Run code in a Python that has the hook first on PYTHONPATH; return what it prints."""
    given = environment(**more)
    given["PYTHONPATH"] = os.pathsep.join([str(STARTUP), *map(str, path), given["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, *options, "-c", code], env=given, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_without_a_trainer_imports_nothing_more(tmp_path) -> None:
    """The hook imports no module that Python hasn't imported already, but itself, and writes nothing."""
    (tmp_path / "attempt").mkdir()
    with_hook = set(json.loads(python(MODULES, VAULTLAYER_RUN_ATTEMPT=str(tmp_path / "attempt"))))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "sitecustomize.py").write_text("")
    given = environment(PYTHONPATH=str(tmp_path / "empty"))
    done = subprocess.run(
        [sys.executable, "-c", MODULES], env=given, capture_output=True, text=True, check=True
    )
    assert with_hook - set(json.loads(done.stdout)) == set()
    assert list((tmp_path / "attempt").iterdir()) == []


def test_another_sitecustomize_runs_too(tmp_path) -> None:
    """The one that the hook hides is run, and is what `import sitecustomize` gives."""
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.been_here = __file__\n")
    code = "import sitecustomize; print(been_here, sitecustomize.__file__)"
    out = python(code, path=(tmp_path,), VAULTLAYER_RUN_ATTEMPT=str(tmp_path))
    assert out.split() == [str(tmp_path / "sitecustomize.py")] * 2


@pytest.mark.slow
def test_the_hook_finds_the_trainer_in_every_way_to_import_it(tmp_path) -> None:
    """Whether by name from transformers or from its module, and in a child process: it is the changed class."""
    (tmp_path / "train.py").write_text(
        "import inspect, subprocess, sys, transformers\n"
        "from transformers import Seq2SeqTrainer, Trainer\n"
        "assert Trainer is transformers.trainer.Trainer\n"
        "assert '_vaultlayer_run' in Trainer.__dict__\n"
        "assert issubclass(Seq2SeqTrainer, Trainer)\n"
        "assert 'compute_loss_func' in inspect.signature(Trainer).parameters\n"
        "if not sys.argv[1:]:\n    subprocess.run([sys.executable, sys.argv[0], 'child'], check=True)\n"
    )
    (tmp_path / "attempt").mkdir()
    code = f"import runpy, sys; sys.argv = [{str(tmp_path / 'train.py')!r}]; runpy.run_path(sys.argv[0])"
    python(code, VAULTLAYER_RUN_ATTEMPT=str(tmp_path / "attempt"))
    notes = [json.loads(line) for line in (tmp_path / "attempt" / "rank-0.jsonl").read_text().splitlines()]
    assert [note["kind"] for note in notes] == ["hooked", "hooked"]
    assert len({note["pid"] for note in notes}) == 2


ORDERS = """
import importlib.util, os, sys, torch
torch.set_num_threads(1)
orders = {
    "transformers": "from transformers import Trainer, TrainingArguments; Own = None",
    "ours": "from vaultlayer_hf import Trainer as Own",
    "callback": "import vaultlayer_hf.trainer.callback; from vaultlayer_hf import Trainer as Own",
    "late": "import transformers.trainer; from vaultlayer_hf import Trainer as Own",
    "loop": "from vaultlayer_hf import Checkpointer; from vaultlayer_hf import Trainer as Own",
    "peft": "import peft; from vaultlayer_hf import Trainer as Own",
    "trl": "from trl import SFTTrainer; from vaultlayer_hf import Trainer as Own",
    "cycle": "import vaultlayer_hf.trainer.data; from transformers import Trainer, TrainingArguments; Own = None",
}
for name, order in orders.items():
    if name in ("peft", "trl") and importlib.util.find_spec(name) is None:
        continue  # today's want a newer transformers than the oldest that is supported
    if os.fork() == 0:
        os.environ["VAULTLAYER_RUN_ATTEMPT"] = attempt = os.path.join(os.getcwd(), name)
        os.mkdir(attempt)
        os.chdir(attempt)
        exec(order)
        from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
        sizes = dict(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
        args = TrainingArguments(
            "out", max_steps=2, save_steps=1, per_device_train_batch_size=4, use_cpu=True, report_to=[],
            disable_tqdm=True, dataloader_pin_memory=False, save_strategy="steps",
        )
        row = torch.arange(4)
        rows = [{"input_ids": row, "labels": row}] * 16
        kwargs = dict(model=LlamaForCausalLM(LlamaConfig(**sizes)), args=args, train_dataset=rows)
        trainer = Own(resume="own", **kwargs) if Own else Trainer(**kwargs)
        trainer.train()
        print(name, args.per_device_train_batch_size, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, name
"""
"""Trains a little after each order of imports, each in a process of its own that has imported torch alone."""


@pytest.mark.slow
def test_a_training_is_kept_and_watched_in_every_order_of_imports(tmp_path) -> None:
    """Whoever brings transformers.trainer, our own modules too: its vault, steps and micro-batch are `vl run`'s."""
    done = run_orders(tmp_path)
    assert "nothing is kept" not in done.stderr
    sizes = dict(line.split() for line in done.stdout.splitlines() if line[-2:] == " 2")
    extra = {name for name in ("peft", "trl") if importlib.util.find_spec(name) is not None}
    assert set(sizes) == {"callback", "cycle", "late", "loop", "ours", "transformers"} | extra
    for name in sizes:
        attempt = tmp_path / name
        trains = [note for note in read_notes(attempt)[0] if note["kind"] == "train"]
        vault = tmp_path / "inserted" if name in ("transformers", "cycle") else attempt / "own"
        assert [note["vault"] for note in trains] == [f"file://{vault}"], name
        assert read_beats(attempt)[0]["step"] == 2, name


def run_orders(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ORDERS in a folder, with half the micro-batch asked for."""
    given = environment(
        VAULTLAYER_RUN_ATTEMPT=str(folder),
        VAULTLAYER_RUN_DIVIDE="2",
        VAULTLAYER_VAULT=str(folder / "inserted"),
    )
    given["PYTHONPATH"] = os.pathsep.join([str(STARTUP), given["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, "-c", ORDERS], env=given, cwd=folder, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (["python", "-I", "train.py"], "-I"),
        (["/usr/bin/python3.11", "-u", "-S", "-m", "train"], "-S"),
        (["python", "-W", "error", "-uE", "train.py"], "-E"),
        (["python", "train.py", "-I"], ""),
        (["python", "-m", "train", "-S"], ""),
        (["python", "-c", "print()", "-E"], ""),
        (["torchrun", "-I", "train.py"], ""),
        (["python", "-Wignore::E", "train.py"], ""),
    ],
    ids=" ".join,
)
def test_options_that_keep_the_hook_out_are_known(command, flag) -> None:
    """Python's own options count, and nothing behind the script's name does."""
    reason = why_unreached(command)
    assert (flag in reason and bool(reason)) if flag else not reason


def test_a_process_that_lost_its_environment_is_told_from_one_that_has_it() -> None:
    """A child that was started with an environment of its own is noticed by what it lacks."""
    good = {"VAULTLAYER_RUN_ATTEMPT": "/x", "PYTHONPATH": f"/y:{STARTUP}"}
    assert not why_unreached(["python", "train.py"], good)
    assert "environment of its own" in why_unreached(["python", "train.py"], {})
    assert "has lost" in why_unreached(["python", "train.py"], {**good, "PYTHONPATH": "/y"})
    assert not why_unreached(["bash", "train.sh"], {})


def test_only_what_uses_torch_is_said(tmp_path) -> None:
    """An unreached helper that never loads torch is nobody's concern; one that does is named, once."""
    import psutil

    code = "import sys, time\nif len(sys.argv) > 1: import torch\nprint('up', flush=True); time.sleep(60)"
    lookout = Lookout()
    started = [
        subprocess.Popen([sys.executable, "-I", "-c", code, *more], stdout=subprocess.PIPE, text=True)
        for more in ([], ["torch"])
    ]
    try:
        for one in started:
            assert one.stdout.readline() == "up\n"
        found = [lookout.look([psutil.Process(one.pid) for one in started]) for _ in range(3)]
    finally:
        for one in started:
            one.kill()
            one.communicate()
    said = [sentence for sentences in found for sentence in sentences]
    assert len(said) == 1
    assert str(started[1].pid) in said[0]
    assert "-I" in said[0]
