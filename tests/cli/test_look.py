"""`vl show`, `vl why`, `vl diff` and `vl prune --dry-run` on real vaults: they look, and change nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from tests.kit.any_files import AnyFiles
from tests.vault.vaults import TrainersFiles, a_session, tree
from tests.vault.vaults import train as train_on
from vaultlayer_hf import Checkpointer, Settings
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.log.log import Log, Writer
from vaultlayer_hf.vault.manifest import encode_mark

from .conftest import vl


def rows(text: str) -> list[list[str]]:
    """Return the words of each line."""
    return [line.split() for line in text.splitlines() if line.strip()]


def test_show_tells_what_the_folder_holds(trained: Path) -> None:
    """Every file is listed with its size and digest, and the versions are those that wrote it."""
    import transformers

    done = vl("show", f"{trained}@40")
    assert done.code == 0, done.err
    shown = vl("show", f"{trained}@40", "--json").json()
    folder = trained / shown["folder"]
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    assert {item["path"]: item["size"] for item in shown["files"]} == sizes
    assert shown["versions"]["transformers"] == transformers.__version__
    for item in shown["files"]:
        assert [item["path"], item["digest"].removeprefix("blake3:")[:12] + "…"] in [
            [row[0], row[-1]] for row in rows(done.out)
        ]
    assert (shown["world_size"], shown["parameters"]["numbers"]) == (1, 4656)
    assert vl("show", str(trained), "--json").json()["step"] == 60


@pytest.mark.parametrize("command", ["show", "why", "pull", "pin"])
def test_a_step_that_is_not_there(trained: Path, command: str) -> None:
    """A step that was never committed ends with 1 and one line that says so; nothing is printed or made."""
    done = vl(command, f"{trained}@50")
    assert (done.code, done.out) == (1, "")
    assert "step 50" in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["show", "why", "pull", "pin", "prune", "diff", "archive"])
def test_no_vault_is_made_by_looking(tmp_path: Path, command: str) -> None:
    """Where there is no vault, the command says so with 1, and makes none."""
    more = {"prune": ["--dry-run"], "diff": [str(tmp_path / "none")]}
    done = vl(command, str(tmp_path / "none"), *more.get(command, []))
    assert (done.code, "no vault" in done.err) == (1, True)
    assert not (tmp_path / "none").exists()


def test_why_the_newest_and_why_not_an_older_one(trained: Path) -> None:
    """The newest is what a start resumes from; an older one names the newer, and the entries that made it so."""
    newest = vl("why", str(trained), "--json").json()
    assert (newest["step"], newest["resumes"], newest["verdict"]) == (60, True, "newest")
    assert [line["number"] for line in newest["walk"]] == [1, 4, 5]
    older = vl("why", f"{trained}@20")
    assert older.code == 0
    assert "Step 20 (log entry 2) is older" in older.out
    assert "the newest is step 60 (entry 4)" in older.out
    assert rows(older.out)[-1][-5:] == ["run", "finished", "at", "step", "60"]


def test_why_follows_damage_to_the_one_before(vault: Path) -> None:
    """A newest checkpoint that lacks a file isn't whole, and the step that a start walks back to is named."""
    next(vault.glob("data/*/checkpoint-60")).joinpath("optimizer.pt").unlink()
    found = vl("why", str(vault), "--json").json()
    assert (found["resumes"], found["instead"]) == (False, 40)
    assert "optimizer.pt" in found["problems"][0]
    assert "walks back to step 40" in vl("why", str(vault)).out


def test_why_tells_of_what_was_left_behind_or_retired(tmp_path: Path) -> None:
    """Of a run that went on from an older step: what was left behind, what was retired, and by which entry."""
    vault = str(tmp_path / "vault")
    train_on(vault, tmp_path / "one", 10, 20, 30, keep_last=None)
    train_on(vault, tmp_path / "two", 15, keep_last=None, at_step=10)  # what @10 leaves behind is spared
    left = vl("why", f"{vault}@30", "--json").json()
    assert (left["verdict"], left["resumes"]) == ("left behind", False)
    assert left["walk"][-1]["text"].endswith("this one is left behind")
    assert "the next start resumes from step 15" in left["reason"]
    train_on(vault, tmp_path / "three", 25, keep_last=1)
    gone = vl("why", f"{vault}@20", "--json").json()
    assert gone["verdict"] == "retired"
    assert gone["walk"][-1]["text"] == "retired"
    number = gone["walk"][-1]["number"]
    entry = json.loads((tmp_path / "vault" / f"log/{number:020d}.json").read_text())
    assert entry["detail"]["retired"][str(gone["number"])] in gone["reason"]


def test_why_of_what_was_uploaded_and_never_committed(vault: Path) -> None:
    """A folder without a commit is told apart from a step that never was."""
    for folder in ("checkpoint-50", "raw"):
        (vault / "data/1" / folder / ".vault").mkdir(parents=True)
        (vault / "data/1" / folder / "model.safetensors").write_bytes(b"half")
    (vault / "data/1/checkpoint-50/.vault/upload.json").write_bytes(encode_mark("data/1/checkpoint-50"))
    done = vl("why", f"{vault}@50")
    assert done.code == 1
    assert "never committed" in done.err
    assert "data/1/checkpoint-50" in done.err


def test_why_of_an_empty_vault_heeds_the_fork_that_is_named(tmp_path: Path) -> None:
    """A vault without a checkpoint begins at step 0, or as the fork that VAULTLAYER_FORK names."""
    store = open_store(str(tmp_path / "vault"))
    Writer.claim(store, Log(store))
    assert (
        "begins at step 0, unless it is a fork" in vl("why", str(tmp_path / "vault"), VAULTLAYER_FORK="").err
    )
    told = vl("why", str(tmp_path / "vault"), VAULTLAYER_FORK="s3://bucket/run@5")
    assert (told.code, "is a fork of s3://bucket/run@5, as VAULTLAYER_FORK says" in told.err) == (1, True)
    told = vl("why", str(tmp_path / "vault"), VAULTLAYER_FORK="None")  # as Settings read it
    assert (told.code, "begins at step 0, unless it is a fork" in told.err) == (1, True)


def test_diff_of_two_steps(trained: Path) -> None:
    """Steps, losses and files that differ are shown; what is the same is counted; settings are the same."""
    found = vl("diff", f"{trained}@20", f"{trained}@60", "--json").json()
    state = json.loads(next(trained.glob("data/*/checkpoint-60/trainer_state.json")).read_text())
    assert (found["second"]["loss"], found["second"]["loss_step"]) == (state["log_history"][-1]["loss"], 60)
    assert (found["losses_shared"], found["losses_part_at"]) == (2, None)
    assert found["settings"] == found["versions"] == {}
    changed = {item["path"] for item in found["files"]}
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json"} <= changed
    assert found["files_same"] + len(changed) == 11
    text = vl("diff", f"{trained}@20", f"{trained}@60").out
    assert f"{found['second']['loss']:.4f} (step 60)" in text


def test_diff_of_two_runs_finds_the_setting(trained: Path, tmp_path: Path) -> None:
    """Of two vaults that differ in one argument, that argument is what is shown, read without running the pickle."""
    import torch
    from transformers import TrainingArguments

    for name, rate in (("one", 1e-3), ("two", 3e-4)):
        state = {"global_step": 5, "log_history": [{"step": 4, "loss": 2.0}, {"step": 5, "loss": rate}]}
        arguments = io.BytesIO()
        torch.save(TrainingArguments("out", learning_rate=rate, use_cpu=True, report_to=[]), arguments)
        content = {
            "trainer_state.json": json.dumps(state).encode(),
            "training_args.bin": arguments.getvalue(),
        }
        commit_files(str(tmp_path / f"vault-{name}"), tmp_path / name, content)
    found = vl("diff", f"{tmp_path}/vault-one@5", f"{tmp_path}/vault-two@5", "--json").json()
    assert found["same_vault"] is False
    assert found["settings"] == {"learning_rate": [1e-3, 3e-4]}
    assert (found["losses_shared"], found["losses_part_at"]) == (2, 5)


def commit_files(vault: str, output: Path, content: dict[str, bytes]) -> None:
    """Commit a checkpoint of step 5 that holds these files."""
    session, heard = a_session(vault, output)
    training = Training(session)
    resume(session, TrainersFiles(()))
    folder = output / "checkpoint-5"
    folder.mkdir(parents=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    training.save(Save(folder, 5, AnyFiles()))
    assert training.flush(), heard.events
    training.close()


def test_prune_shows_what_a_run_would_do(vault: Path) -> None:
    """The dry run names what would go and why, and what lies there uncommitted; nothing is changed."""
    for folder in ("checkpoint-50", "raw"):
        (vault / "data/1" / folder / ".vault").mkdir(parents=True)
        (vault / "data/1" / folder / "model.safetensors").write_bytes(b"half")
    (vault / "data/1/checkpoint-50/.vault/upload.json").write_bytes(encode_mark("data/1/checkpoint-50"))
    before = tree(vault)
    found = vl("prune", str(vault), "--dry-run", "--keep-last", "1", "--json").json()
    assert [(item["step"], item["keep"]) for item in found["checkpoints"]] == [
        (20, False),
        (40, False),
        (60, True),
    ]
    assert found["would_free"] == sum(item["bytes"] for item in found["checkpoints"][:2])
    assert [(item["folder"], "never deleted" in item["fate"]) for item in found["leftovers"]] == [
        ("data/1/checkpoint-50", False),
        ("data/1/raw", True),
    ]
    text = vl("prune", str(vault), "--dry-run", VAULTLAYER_KEEP_LAST="2").out
    assert [row[4] for row in rows(text) if row[0] in ("20", "40", "60")] == ["retire", "keep", "keep"]
    assert "never committed" in text
    assert tree(vault) == before
    real = vl("prune", str(vault))
    assert (real.code, "--dry-run" in real.err) == (2, True)


def test_prune_says_what_the_next_run_really_does(tmp_path: Path) -> None:
    """What the dry run would retire is exactly what a run with that policy then retires."""
    vault = str(tmp_path / "vault")
    train_on(vault, tmp_path / "one", 10, 20, 30, 40, keep_last=None)
    assert vl("pin", f"{vault}@10").code == 0
    found = vl("prune", vault, "--dry-run", "--keep-last", "2", "--json").json()
    going = {item["step"] for item in found["checkpoints"] if not item["keep"]}
    train_on(vault, tmp_path / "one", 50, keep_last=3)  # the new one takes one of the three places
    left = {item["step"] for item in vl("ls", vault, "--json").json()["checkpoints"]}
    assert going == {20}
    assert left == {10, 30, 40, 50}


def test_nothing_in_a_vault_steers_the_terminal(vault: Path) -> None:
    """Markup and control characters in a checkpoint's own files come out as plain text."""
    from vaultlayer_hf.cli.tables import clean

    assert clean("[bold]x[/bold]\x1b[31m\n") == "[bold]x[/bold]?[31m?"


def test_diff_of_a_loops_checkpoints_has_their_losses(tmp_path: Path) -> None:
    """A loop notes the loss of the step that it saves, as `vl ls --metrics` shows it: so does `vl diff`."""
    vault = str(tmp_path / "vault")
    for steps in (1, 2):
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        settings = Settings(vault=vault, keep_last=None)
        ckpt = Checkpointer(settings, model=model, optimizer=optimizer, output_dir=tmp_path / "output")
        for step in range(ckpt.resume(), steps):
            ckpt.step(loss=1 / (step + 1))
        ckpt.finish()
    found = vl("diff", f"{vault}@1", f"{vault}@2", "--json").json()
    assert [(side["loss"], side["loss_step"]) for side in (found["first"], found["second"])] == [
        (1.0, 1),
        (0.5, 2),
    ]
    assert "none logged" not in vl("diff", f"{vault}@1", f"{vault}@2").out
