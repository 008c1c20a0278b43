"""Scripts that want an empty output folder: what earlier attempts left there is out of their way, and comes back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.run.programs import finish, start
from vaultlayer_hf.run.decide.cause import Cause, Death, Error, classify
from vaultlayer_hf.run.decide.decision import Action, decide_restart, follow
from vaultlayer_hf.run.decide.restart_history import RestartHistory
from vaultlayer_hf.run.facts import gather
from vaultlayer_hf.run.put_aside import bring_back, put_aside
from vaultlayer_hf.run.symptoms import means_not_empty

SCRIPT = """
import os, signal, torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

class Once(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if str(state.global_step) == os.environ["DIE"] and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

args = TrainingArguments(
    "out", max_steps=6, save_steps=3, logging_steps=1, use_cpu=True, report_to="none", disable_tqdm=True,
    per_device_train_batch_size=2, dataloader_pin_memory=False,
)
last = get_last_checkpoint("out") if os.path.isdir("out") and os.environ["LOOKS"] == "1" else None
if os.environ["LOOKS"] == "0":
    os.makedirs("out")
if last is None and os.path.isdir("out") and len(os.listdir("out")) > 0:
    raise ValueError("Output directory (out) already exists and is not empty. Use --overwrite_output_dir.")
set_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
)
rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (20, 8))]
trainer = Trainer(model=model, args=args, train_dataset=rows, callbacks=[Once()])
trainer.train(resume_from_checkpoint=last)
print("ENDS AT", trainer.state.global_step)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("die", "looks"), [("1", "1"), ("4", "0")])
def test_a_script_that_wants_an_empty_folder_ends_well(die: str, looks: str, tmp_path: Path) -> None:
    """Killed before its first checkpoint, or with one that the script doesn't look for: a later attempt ends well.

    Whether it refuses a folder with files in it, or makes one that may not be there.
    """
    (tmp_path / "train.py").write_text(SCRIPT)
    if looks == "1":  # as TensorBoard's logs would
        (tmp_path / "train.py").write_text(
            SCRIPT.replace("class Once", "import atexit\nclass Once").replace(
                "            open(", '            open("out/events", "w").close()\n            open('
            )
        )
    ran = finish(start(tmp_path, sys.executable, "train.py", DIE=die, LOOKS=looks), tmp_path)
    assert ran.code == 0, ran.err
    assert ran.causes == ["killed", "not-empty", "finished"]
    assert "ENDS AT 6" in ran.out
    assert not (tmp_path / "out.put-aside").exists()
    if looks == "0":
        assert ran.notes(3, "train")[0]["step"] == 3
    else:
        assert (tmp_path / "out" / "events").exists()


def test_it_comes_back_beside_what_is_new(tmp_path: Path) -> None:
    """What comes back never replaces what the script has made meanwhile, and folders that both have are merged."""
    out = tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    (out / "runs" / "one").write_text("old")
    (out / "config").write_text("old")
    said: list[str] = []
    assert put_aside([out], lambda topic, message: said.append(message))
    assert not out.exists()
    assert said == [f"{out} is put aside as out.put-aside until training begins, and then comes back"]
    (out / "runs").mkdir(parents=True)
    (out / "config").write_text("new")
    bring_back(out)
    assert (out / "runs" / "one").read_text() == "old"
    assert (out / "config").read_text() == "new"
    bring_back(out)


def test_the_working_directory_stays(tmp_path: Path) -> None:
    """An output folder in which the program itself lies is never renamed, nor one that is empty or gone."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    folders = [tmp_path, tmp_path / "empty", tmp_path / "gone"]
    assert not put_aside(folders, lambda *_: None, keep=[tmp_path / "code"])
    assert (tmp_path / "file").exists()


def test_put_aside_once_is_put_aside_ahead_of_each_attempt() -> None:
    """Later deaths keep it so; the same refusal once more stops, since a person must change the script."""
    refusal = Death(code=1, errors=[Error(0, "ValueError", "x", not_empty=True)], left=("/out",))
    decision = decide_restart(refusal, RestartHistory())
    assert (decision.action, decision.aside) == (Action.RESTART, True)
    history = follow(refusal, RestartHistory(), decision)
    killed = decide_restart(Death(code=None, signal="SIGKILL", began=True, step=3), history)
    assert (killed.action, killed.aside) == (Action.RESTART, True)
    again = decide_restart(refusal, history)
    assert (again.action, again.cause) == (Action.STOP, Cause.NOT_EMPTY)


def test_a_folder_of_another_name_is_no_reason() -> None:
    """Another folder that is there already has nothing to do with the output folder: that stays where it is."""
    for text, cause in (
        ("[Errno 17] File exists: 'out'", Cause.NOT_EMPTY),
        ("[Errno 17] File exists: '/runs/out/logs'", Cause.NOT_EMPTY),
        ("[Errno 17] File exists: 'logs'", Cause.CRASH),
        ("[Errno 17] File exists: 'out-2'", Cause.CRASH),
        ("I want a folder of my own", Cause.NOT_EMPTY),
    ):
        death = Death(code=1, errors=[Error(0, "FileExistsError", text, not_empty=True)], left=("/runs/out",))
        assert classify(death, trained_before=True) is cause


def test_what_is_put_aside_is_back_when_the_run_stops(tmp_path: Path) -> None:
    """A script that doesn't come to train again leaves nobody's folder under another name."""
    (tmp_path / "train.py").write_text(
        "import os, signal\nfrom vaultlayer_hf.run.report import report\n"
        "if os.path.exists('once'): raise FileExistsError(17, 'File exists', 'out')\n"
        "os.mkdir('out'); open('out/mine', 'w'); open('once', 'w')\n"
        "report.note('train', output_dir=os.path.abspath('out'), step=0, pid=os.getpid())\n"
        "report.beat(step=3, phase='train'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = finish(start(tmp_path, sys.executable, "train.py"), tmp_path)
    assert ran.causes == ["killed", "not-empty", "not-empty"]
    assert ran.actions[-1] == "stop"
    assert (tmp_path / "out" / "mine").exists()
    assert not (tmp_path / "out.put-aside").exists()


def test_the_words_of_known_scripts() -> None:
    """The refusals of transformers' examples, of LLaMA-Factory and of scripts; others that sound alike aren't."""
    words = (
        "Output directory (out) already exists and is not empty. Use --overwrite_output_dir.",
        "Output directory already exists and is not empty. Please set `overwrite_output_dir`.",
        "output dir out exists, I don't overwrite it",
    )
    assert all(means_not_empty("ValueError", text) for text in words)
    assert means_not_empty("FileExistsError", "[Errno 17] File exists: 'out'")
    assert not means_not_empty("ValueError", "the queue is not empty")
    assert not means_not_empty("FileNotFoundError", "[Errno 2] No such file or directory: 'out'")


def test_a_sentence_of_the_scripts_own_is_known(tmp_path: Path) -> None:
    """A script that ends with a sentence and no exception, before it trains, is understood by its last line."""
    death = gather(tmp_path, 1, "loading\noutput dir out exists\n\n", vault=None, left=lambda: ("/out",))
    assert classify(death, trained_before=True) is Cause.NOT_EMPTY
    other = gather(tmp_path, 1, "loading\nno GPU here\n", vault=None, left=lambda: ("/out",))
    assert classify(other, trained_before=True) is Cause.CRASH
