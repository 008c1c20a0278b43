"""`vl ls` and `vl verify` on real vaults."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
from datetime import datetime
from pathlib import Path

import pytest

from tests.vault.vaults import train
from vaultlayer_hf.cli.figures import newest_figures

from .conftest import vl


def checkpoint(vault: Path, step: int) -> Path:
    """The folder of a checkpoint in a folder vault."""
    return next(vault.glob(f"data/*/checkpoint-{step}"))


def test_ls_lists_what_was_committed(trained) -> None:
    """Each committed checkpoint is a row with its step, size and state, and the newest is named."""
    done = vl("ls", str(trained))
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines() if line.strip()]
    assert rows[0][0] == "step"
    assert [row[0] for row in rows[1:4]] == ["20", "40", "60"]
    assert "newest" in rows[3]
    assert "newest" not in rows[2]
    assert "finished" in done.out


def test_ls_json_is_one_object_for_programs(trained) -> None:
    """`--json` gives the same as data: sizes as the files have them, times that parse, folders that exist."""
    found = vl("ls", str(trained), "--json").json()
    assert found["exists"] is True
    assert found["finished"] == 60
    assert [item["step"] for item in found["checkpoints"]] == [20, 40, 60]
    for item in found["checkpoints"]:
        folder = trained / item["folder"]
        files = [path for path in folder.rglob("*") if path.is_file() and ".vault" not in path.parts]
        assert item["files"] == len(files)
        assert item["bytes"] == sum(path.stat().st_size for path in files)
        assert datetime.fromisoformat(item["time"]).utcoffset() is not None
        assert item["token"] == found["token"]


def test_ls_shows_how_good_each_checkpoint_is(trained) -> None:
    """`--metrics` gives the loss that the Trainer had logged by then, for a person and for programs."""
    losses = {}
    for step in (20, 40, 60):
        state = json.loads((checkpoint(trained, step) / "trainer_state.json").read_text())
        losses[step] = state["log_history"][-1]["loss"]
    found = vl("ls", str(trained), "--metrics", "--json").json()["checkpoints"]
    assert {item["step"]: item["metrics"] for item in found} == {
        step: {"loss": loss} for step, loss in losses.items()
    }
    rows = [line.split() for line in vl("ls", str(trained), "--metrics").out.splitlines()]
    assert rows[0][-1] == "loss"
    assert [row[-1] for row in rows[1:4]] == [f"{loss:.4f}" for loss in losses.values()]
    assert all(item["metrics"] == {} for item in vl("ls", str(trained), "--json").json()["checkpoints"])


def test_the_newest_evaluation_counts_and_its_speed_does_not() -> None:
    """Of a history the last loss and the last evaluation's metrics are taken; a loop's own file tells its loss."""
    history = [
        {"step": 10, "loss": 3.0},
        {"step": 10, "eval_loss": 2.9, "eval_f1": 0.1, "eval_runtime": 1.0},
        {"step": 20, "loss": 2.0, "learning_rate": 0.1},
        {"step": 20, "eval_loss": 1.9, "eval_f1": 0.3, "eval_samples_per_second": 7.0},
        {"step": 20, "train_runtime": 9.0, "train_loss": 2.5},
        "not an object",
    ]
    assert newest_figures({"log_history": history}, {}) == {"loss": 2.0, "eval_loss": 1.9, "eval_f1": 0.3}
    assert newest_figures({}, {"step": 3, "loss": 0.5, "world_size": 1}) == {"loss": 0.5}
    assert newest_figures({"log_history": 5}, {"loss": "low"}) == {}


def test_ls_of_a_damaged_log_says_so_and_shows_what_is_whole(vault) -> None:
    """A damaged last entry is said on stderr, and the state before it is listed."""
    last = max((vault / "log").glob("*.json"))
    last.chmod(0o644)
    last.write_bytes(last.read_bytes()[:-20])
    done = vl("ls", str(vault))
    assert done.code == 0
    assert last.stem.lstrip("0") in done.err
    assert "newest" in done.out
    assert "finished" not in done.out


def test_ls_of_nothing_fails_and_creates_nothing(tmp_path) -> None:
    """There being no vault is said and ends with 1, as JSON too, and leaves no folder behind."""
    done = vl("ls", str(tmp_path / "none"))
    assert (done.code, done.out) == (1, "")
    assert "there is no vault" in done.err
    as_json = vl("ls", str(tmp_path / "none"), "--json")
    assert (as_json.code, as_json.json()["exists"]) == (1, False)
    assert not (tmp_path / "none").exists()


def test_ls_of_a_vault_without_checkpoints_says_so(tmp_path) -> None:
    """A vault that was claimed and holds no commit yet is told apart from no vault at all."""
    from vaultlayer_hf.stores import open_store
    from vaultlayer_hf.vault.log.log import Log, Writer

    store = open_store(str(tmp_path / "vault"))
    Writer.claim(store, Log(store))
    done = vl("ls", str(tmp_path / "vault"))
    assert (done.code, "holds no checkpoint" in done.out) == (0, True)


def test_verify_passes_a_whole_vault(trained) -> None:
    """A vault that nobody has touched verifies, checkpoint by checkpoint."""
    done = vl("verify", str(trained))
    assert done.code == 0, done.err
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["step 20", "step 40", "step 60"]
    assert all(": ok," in line for line in done.out.splitlines())


@pytest.mark.parametrize("damage", ["bit", "truncated", "deleted"])
def test_verify_finds_damage_and_names_the_file(vault, damage) -> None:
    """One flipped bit, a truncated or a missing file: exit 1, the file's name, and the others still pass."""
    path = checkpoint(vault, 40) / "optimizer.pt"
    data = bytearray(path.read_bytes())
    if damage == "deleted":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data if damage == "bit" else data[:-1])
    done = vl("verify", str(vault))
    assert done.code == 1
    assert "optimizer.pt" in next(line for line in done.out.splitlines() if line.startswith("step 40"))
    assert done.out.count(": ok,") == 2
    assert done.err.strip().count("\n") == 0
    as_json = vl("verify", str(vault), "--json")
    assert as_json.code == 1
    assert [item["ok"] for item in as_json.json()["checkpoints"]] == [True, False, True]


def test_verify_can_look_at_one_checkpoint(vault) -> None:
    """`--newest` and `--step` read only that checkpoint, so damage elsewhere doesn't fail them."""
    (checkpoint(vault, 40) / "optimizer.pt").unlink()
    assert vl("verify", str(vault), "--newest").code == 0
    assert vl("verify", str(vault), "--step", "20").out.startswith("step 20: ok")
    assert vl("verify", str(vault), "--step", "40").code == 1
    missing = vl("verify", str(vault), "--step", "50")
    assert (missing.code, "no checkpoint of step 50" in missing.err) == (1, True)


def test_verify_of_nothing_fails(tmp_path) -> None:
    """There being nothing to resume from is no success for a script that asks."""
    done = vl("verify", str(tmp_path / "none"))
    assert (done.code, done.out) == (1, "")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["ls", "verify"])
def test_a_bad_uri_is_a_usage_error_in_one_line(command) -> None:
    """A URI that names no store exits with 2, one line on stderr, no traceback; --debug adds it."""
    done = vl(command, "ftp://somewhere/run")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.strip().splitlines()) == 1
    assert "ftp" in done.err
    assert "Traceback" in vl(command, "ftp://somewhere/run", "--debug").err


@pytest.mark.slow
def test_an_unreachable_store_has_its_own_exit_code() -> None:
    """A store that nobody answers for exits with 3 in one line, and repeats no credential."""
    with socket.socket() as held:  # bound and not listening: connections are refused
        held.bind(("127.0.0.1", 0))
        done = vl(
            "ls",
            "s3://bucket/run",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{held.getsockname()[1]}",
            AWS_ACCESS_KEY_ID="key-that-stays-secret",
            AWS_SECRET_ACCESS_KEY="secret-that-stays-secret",
            AWS_REGION="us-east-1",
        )
    assert (done.code, done.out) == (3, ""), done.err
    assert len(done.err.strip().splitlines()) == 1
    assert "stays-secret" not in done.err


def test_verify_shows_a_bar_on_a_terminal_only(trained) -> None:
    """A person sees how far it is, and the bar is gone when it is done; a pipe gets plain lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "vaultlayer_hf.cli", "verify", str(trained), "--newest"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL
    ) as process:
        out = process.stdout.read().decode()
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert process.returncode == 0
    assert "step 60:" in shown
    assert "%" in shown
    assert shown.rsplit("\r", 1)[1].strip() == "", "the bar was left on the screen"
    assert out.startswith("step 60: ok")
    assert vl("verify", str(trained)).err == ""


def test_the_best_is_marked_and_can_be_named(tmp_path: Path) -> None:
    """`vl ls` marks what the Trainer names as its best, and @best is that one for every command; @latest the newest."""
    vault = str(tmp_path / "v")
    train(vault, tmp_path / "o", 2, 4, 6, best=4, keep_last=None)
    rows = [line.split() for line in vl("ls", vault).out.splitlines()]
    assert ["best" in row for row in rows[1:]] == [False, True, False]
    assert vl("show", f"{vault}@best").out.startswith("Step 4 of")
    assert vl("show", f"{vault}@latest").out.startswith("Step 6 of")
    assert "Step 4 (log entry 3) is older" in vl("why", f"{vault}@best").out
    assert vl("verify", f"{vault}@best").out.startswith("step 4: ok")
    assert vl("pull", f"{vault}@best", str(tmp_path / "pulled")).code == 0
    wrong = vl("show", f"{vault}@lates")
    assert (wrong.code, "did you mean @latest?" in wrong.err) == (2, True)
    fork = str(tmp_path / "fork")
    train(fork, tmp_path / "p", 7, best=4, fork=f"{vault}@6", keep_last=None)
    told = vl("pull", f"{fork}@best", str(tmp_path / "pulled-2"))
    assert (told.code, "of the run that it was forked from: name file://" in told.err) == (1, True)
    assert told.err.strip().endswith(f"{vault}@4")
