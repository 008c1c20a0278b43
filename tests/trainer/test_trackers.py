"""One run in the experiment tracker over all attempts, and no step in it twice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import TrainerCallback

from tests import ROOT
from tests.trainer.kit import STEPS, Boom, FailAt, Patient, steps_of, trainer
from tests.trainer.wandb_server import wandb_server
from vaultlayer_hf import Settings
from vaultlayer_hf.state.tracker_runs import FILE
from vaultlayer_hf.trainer.kept_runs import read_runs
from vaultlayer_hf.trainer.logged import Logged, wandb_rows

NEW_FOLDERS = "logging_dir" not in transformers.TrainingArguments.__dataclass_fields__
PROGRAM = """
import os, signal, sys
from transformers import TrainerCallback
from tests.trainer.kit import Patient, trainer

class Die(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if str(state.global_step) == os.environ.get("DIE"):
            if os.environ.get("HOW") == "raise":
                raise RuntimeError("the end of this attempt")
            os.kill(os.getpid(), signal.SIGKILL)

run = trainer("out", resume="vault", save_steps=2, callbacks=[Patient("vault"), Die()], report_to=sys.argv[1],
    run_name=os.environ.get("RUN_NAME"))
run.train()
"""


def losses(folder: Path) -> list[int]:
    """The steps whose loss TensorBoard shows of a folder, each as often as it stands there."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return [event.step for event in read.Scalars("train/loss")]


@pytest.mark.parametrize("named", [False, True])
def test_tensorboard_goes_on_in_its_folder(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts write one folder, the user's where one is named; what the first logged too far isn't shown twice."""
    more = {"report_to": "tensorboard", "save_steps": 4}
    out, vault = tmp_path / "out", tmp_path / "vault"
    if named and NEW_FOLDERS:
        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "mine"))
    elif named:
        more["logging_dir"] = str(tmp_path / "mine")
    with pytest.raises(Boom):
        trainer(out, resume=vault, callbacks=[Patient(vault), FailAt(7)], **more).train()
    trainer(out, resume=vault, **more).train()
    (folder,) = [tmp_path / "mine"] if named else (out / "runs").iterdir()
    assert losses(folder) == list(range(1, STEPS + 1))
    kept = {"folder": str(folder)} if named else {"folder": f"runs/{folder.name}"}
    assert read_runs(out / "checkpoint-8") == {"tensorboard": kept}


def test_another_training_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """A run from the start, in the same process, doesn't write into the folder of the one before."""
    for name in ("a", "b"):
        trainer(tmp_path / name, resume=tmp_path / f"vault-{name}", report_to="tensorboard").train()
        (folder,) = (tmp_path / name / "runs").iterdir()
        assert losses(folder) == list(range(1, STEPS + 1))


def test_the_consoles_line_is_the_trainers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The vault's figures aren't printed, and no reporter gets them where that is set."""
    seen: list[dict[str, float]] = []
    reporter = transformers.TrainerCallback()
    reporter.on_log = lambda *args, logs, **kwargs: seen.append(dict(logs))
    vault = Settings(vault=str(tmp_path / "vault"))
    trainer(tmp_path / "out", resume=vault, callbacks=[reporter], max_steps=4).train()
    assert "'loss'" in capsys.readouterr().out
    assert "vault/stall_seconds" in seen[0]
    seen.clear()
    quiet = Settings(vault=str(tmp_path / "vault-2"), log_figures=False)
    trainer(tmp_path / "out-2", resume=quiet, callbacks=[reporter], max_steps=4).train()
    out = capsys.readouterr().out
    assert "'loss'" in out
    assert "vault/" not in out
    assert not [name for logs in seen for name in logs if "vault" in name]


def test_only_a_start_that_goes_back_tells_of_its_steps_again(tmp_path: Path) -> None:
    """VAULT@STEP goes back once: started again it goes on, and what its first attempt has logged isn't logged twice."""
    vault = tmp_path / "vault"
    went: list[bool] = []

    def start(number: int, at: str, step: int) -> None:
        run = trainer(tmp_path / str(number), resume=f"{vault}{at}", callbacks=[Patient(vault), FailAt(step)])
        with pytest.raises(Boom):
            run.train()
        went.append(run.vault.run.goes_back())

    for number, (at, step) in enumerate([("", 5), ("@2", 3), ("@2", 5), ("@2", 7)]):
        start(number, at, step)
    assert went == [False, True, True, False]


def test_a_loss_and_an_evaluation_of_one_step_are_two_logs() -> None:
    """What was logged is known by step and name: an evaluation that the death cut off is logged by the next attempt."""
    logged = Logged(5, frozenset({"loss", "epoch"}))
    assert logged.holds(4, ["eval_loss"])
    assert logged.holds(5, ["loss"])
    assert not logged.holds(5, ["eval_loss", "epoch"])
    assert not logged.holds(6, ["loss"])


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 1, "runs": {"wandb": 3}}', "\0"])
def test_a_checkpoint_that_names_no_runs_has_none(content: str, tmp_path: Path) -> None:
    """A file of an earlier version, a torn one or none: then each tracker begins a run, as without us."""
    assert read_runs(tmp_path) == {}
    (tmp_path / FILE).write_text(content)
    assert read_runs(tmp_path) == {}


class WandbCallback(TrainerCallback):
    """Somebody's own callback under a name that transformers has, too; nothing of it is as there."""

    class _wandb:
        class run:
            id: Any = "1"
            name, url, offline = "", "", False

    @property
    def _initialized(self) -> bool:
        raise RuntimeError("ask somebody else")


def test_a_callback_that_only_has_a_trackers_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises where it is taken for the tracker's own costs neither a checkpoint nor the start."""
    for steps in (2, 4):
        run = trainer(
            tmp_path,
            resume=str(tmp_path / "vault"),
            callbacks=[WandbCallback()],
            max_steps=steps,
            save_steps=2,
        )
        run.train()
        assert run.state.global_step == steps
        monkeypatch.setattr(WandbCallback._wandb.run, "id", b"1")
    assert steps_of(tmp_path / "vault") == [2, 4]
    assert (
        "WandbCallback doesn't go on in the run that it had: RuntimeError: ask somebody else" in caplog.text
    )
    assert "checkpoint-4: a resume can't go on in the tracker's run: " in caplog.text


three_starts = pytest.mark.timeout(900)
"""Three processes, one behind the other, that each import torch, transformers and a tracker, which has a process of its
own: on a machine with ten others at work each takes two minutes, and the limit of a test is five."""


def three_attempts(folder: Path, tracker: str, **environment: str) -> None:
    """Train under a tracker, broken off at steps 4 and 7, to the end; logs went a step beyond the checkpoints."""
    for die in ("4", "7", ""):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, tracker],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
                "DIE": die,
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert (done.returncode == 0) == (not die), done.stderr[-3000:]


@pytest.mark.slow
@three_starts
@pytest.mark.parametrize(("mine", "how"), [(False, "raise"), (True, "raise"), (False, "kill")])
def test_wandb_has_one_run(mine: bool, how: str, tmp_path: Path) -> None:
    """Three attempts write to one run of W&B, to the user's where they name one; no step's loss twice.

    A kill loses what W&B hadn't written yet, which is all of so short an attempt.
    """
    pytest.importorskip("wandb", reason="needs wandb: pip install -e '.[testtrackers]'")
    more = {"WANDB_RUN_ID": "my-own", "WANDB_RESUME": "allow"} if mine else {}
    three_attempts(tmp_path, "wandb", WANDB_MODE="offline", WANDB_SILENT="true", HOW=how, **more)
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 3
    assert len({path.stem for path in files}) == 1
    assert (files[0].stem == "run-my-own") == mine
    steps = [row["train/global_step"] for path in files for row in wandb_rows(path) if "train/loss" in row]
    assert steps == (list(range(1, STEPS + 1)) if how == "raise" else [7, 8])


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_wandb_syncs_offline_folders_into_one_run(tmp_path: Path) -> None:
    """The guide's command sends the folders of three attempts as one run, with each step's loss once and in order."""
    pytest.importorskip("wandb", reason="needs wandb: pip install -e '.[testtrackers]'")
    three_attempts(tmp_path, "wandb", WANDB_MODE="offline", WANDB_SILENT="true", HOW="raise")
    guide = (ROOT / "vaultlayer_hf" / "trainer" / "README.md").read_text()
    (command,) = re.findall(r"`(wandb sync[^`]*)`", guide)
    with wandb_server() as server:
        done = subprocess.run(
            [sys.executable, "-m", *command.split()],
            cwd=tmp_path,
            env={**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    (run,) = server.runs
    rows = server.history(run)
    steps = [row["train/global_step"] for row in rows if "train/loss" in row]
    assert steps == list(range(1, STEPS + 1))
    assert [row["_step"] for row in rows] == list(range(len(rows)))


@pytest.mark.slow
@three_starts
@pytest.mark.parametrize("mine", [False, True])
def test_mlflow_has_one_run(mine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three attempts write to one run of MLflow, to the user's where they name one; each step's loss once."""
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install -e '.[testtrackers]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    more = {}
    if mine:
        own = mlflow.MlflowClient(f"file://{tmp_path}/runs").create_run("0", run_name="my own")
        more["MLFLOW_RUN_ID"] = own.info.run_id
    three_attempts(
        tmp_path,
        "mlflow",
        MLFLOW_TRACKING_URI=f"file://{tmp_path}/runs",
        HOW="raise",
        **more,
    )
    (found,) = (tmp_path / "runs" / "0").glob("*/metrics/loss")
    # MLflow writes in threads of its own, in any order.
    steps = sorted(int(line.split()[2]) for line in found.read_text().splitlines())
    assert steps == list(range(1, STEPS + 1))
    assert not mine or found.parent.parent.name == more["MLFLOW_RUN_ID"]


@pytest.mark.slow
@three_starts
@pytest.mark.parametrize("mine", [False, True])
def test_trackio_has_one_run(mine: bool, tmp_path: Path) -> None:
    """Three attempts write to one run of Trackio, to the user's where they name one; each step's loss once."""
    pytest.importorskip("trackio", reason="needs trackio: pip install -e '.[testtrackers]'")
    import json
    import sqlite3

    more = {"RUN_NAME": "my own"} if mine else {}
    three_attempts(tmp_path, "trackio", TRACKIO_DIR=str(tmp_path / "trackio"), HOW="raise", **more)
    with sqlite3.connect(tmp_path / "trackio" / "huggingface.db") as database:
        rows = database.execute("select run_name, metrics from metrics").fetchall()
    (name,) = {name for name, _ in rows}
    assert (name == "my own") == mine
    steps = [json.loads(text)["train/global_step"] for _, text in rows if b"train/loss" in bytes(text)]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.slow
@three_starts
def test_clearml_has_one_task(tmp_path: Path) -> None:
    """Three attempts write to one task of ClearML, offline; a step that two of them trained has the later's point."""
    pytest.importorskip("clearml", reason="needs clearml: pip install clearml")
    import json

    three_attempts(
        tmp_path,
        "clearml",
        CLEARML_OFFLINE_MODE="1",
        CLEARML_CACHE_DIR=str(tmp_path / "cache"),
        CLEARML_LOG_MODEL="false",
        HOME=str(tmp_path),
        HOW="raise",
    )
    (folder,) = {path.parent for path in tmp_path.rglob("metrics.jsonl")}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = {one["iter"] for row in rows for one in row if one.get("variant") == "loss"}
    assert steps == set(range(1, STEPS + 1))
    assert read_runs(tmp_path / "out" / f"checkpoint-{STEPS}")["clearml"]["id"] == folder.name


@pytest.mark.slow
@three_starts
def test_comet_has_one_experiment(tmp_path: Path) -> None:
    """Three attempts have one experiment of Comet, offline; its archives are named by its key."""
    pytest.importorskip("comet_ml", reason="needs comet_ml: pip install comet_ml")
    three_attempts(
        tmp_path,
        "comet_ml",
        COMET_START_ONLINE="0",
        COMET_OFFLINE_DIRECTORY=str(tmp_path / "comet"),
        HOME=str(tmp_path),
        HOW="raise",
    )
    names = [path.name for path in (tmp_path / "comet").glob("*.zip")]
    first, last = (read_runs(tmp_path / "out" / f"checkpoint-{step}")["comet"]["id"] for step in (2, STEPS))
    assert first == last
    assert names
    assert all(name.startswith(first) for name in names)


def test_show_status_and_report_name_the_run(tmp_path: Path) -> None:
    """A checkpoint and the run say which run a tracker had, so that a person finds it from the vault alone."""
    pytest.importorskip("tensorboard")
    from tests.cli.conftest import vl

    vault, page = str(tmp_path / "vault"), tmp_path / "report.html"
    trainer(tmp_path / "out", resume=vault, report_to="tensorboard", max_steps=2).train()
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    kept = {"tensorboard": {"folder": f"runs/{folder.name}"}}
    for command in ("show", "status"):
        assert vl(command, vault, "--json").json()["trackers"] == kept
        assert folder.name[:15] in vl(command, vault).out
    assert vl("report", vault, "--out", str(page), "--json").json()["trackers"] == kept
    assert f"tensorboard runs/{folder.name}" in page.read_text()
