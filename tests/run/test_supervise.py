"""`vl run` as the parent of any program: signals, logs, children, notices and exit codes. Programs without torch."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tests.cli.stories import commit_at
from tests.run.deaths import await_file, leftovers
from tests.run.programs import finish, start, vl_run
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.log.log import Log, Writer

PULSE = "import time\nfrom vaultlayer_hf.run.report import report\n"
"""How a program here gives signs of life without being a training."""


def test_what_the_program_says_is_passed_on_and_kept(tmp_path) -> None:
    """stdout and stderr come through apart, and together they are in the attempt's log; all is well: code 0."""
    ran = vl_run(tmp_path, script="import sys; print('to out'); print('to err', file=sys.stderr)")
    assert ran.code == 0
    assert ran.out == "to out\n"
    assert "to err\n" in ran.err
    log = (tmp_path / ".vl" / "attempt-0001" / "output.log").read_text()
    assert "to out" in log
    assert "to err" in log
    assert "no transformers.Trainer was trained" in ran.err
    assert [line["kind"] for line in ran.journal] == ["begin", "start", "death", "decision", "notice", "end"]


def test_a_training_that_has_left_nothing_in_its_vault_is_named_at_the_end(tmp_path) -> None:
    """A training that ends well and has committed nothing is never "done" in silence."""
    script = PULSE + (
        "import os\nreport.note('train', output_dir='.', step=0, pid=os.getpid())\nreport.beat(step=9, phase='train')"
    )
    ran = vl_run(tmp_path, script=script)
    assert ran.code == 0
    assert "the training has ended, and no checkpoint of it is in the vault" in ran.err
    assert "no transformers.Trainer was trained" not in ran.err


def test_the_vault_is_looked_at_ahead_of_the_first_death(tmp_path) -> None:
    """What the first look at a bucket takes, its client's import and credentials, doesn't hold up a restart."""
    asked = tmp_path / "asked"

    class Denies(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.touch()
            self.send_error(403)

        do_PUT = do_HEAD = do_GET

    script = PULSE + (
        "import os\nreport.note('train', vault='s3://bucket/run', step=0, pid=os.getpid())\n"
        "report.beat(step=1, phase='loop')\nend = time.monotonic() + 20\n"
        "while not os.path.exists('asked') and time.monotonic() < end: time.sleep(0.02)\n"
        "print('asked', os.path.exists('asked'))\n"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Denies) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
        ran = vl_run(tmp_path, script=script, AWS_ENDPOINT_URL=endpoint, **keys)
        server.shutdown()
    assert (ran.code, ran.out) == (0, "asked True\n")


def test_a_walk_back_outlives_an_attempt_that_is_killed_before_it_trains(tmp_path) -> None:
    """What is told of such an attempt is about the vault that the script has named in the one before."""
    store = open_store(str(tmp_path / "own"))
    writer, _ = Writer.claim(store, Log(store))
    for step in (100, 200, 300):
        commit_at(writer, step, "2026-01-02T03:04:05.000Z")
    script = PULSE + (
        "import os, signal\nfrom pathlib import Path\n"
        "number = len(list(Path('.vl').glob('attempt-*')))\nprint(os.environ.get('VAULTLAYER_RUN_AT'), flush=True)\n"
        "if number == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "report.note('train', vault='file://' + os.path.abspath('own'), step=0, pid=os.getpid())\n"
        "if number == 1:\n    report.beat(step=250, phase='loop')\n    report.note('nonfinite', step=250)\n"
        "    raise SystemExit(1)\n"
        "report.note('trained', step=300)\n"
    )
    ran = vl_run(tmp_path, script=script)
    assert ran.causes == ["nonfinite", "killed", "finished"]
    at = f"file://{tmp_path / 'own'}@200"
    assert ran.out.split() == ["None", at, at]
    assert "nothing is committed yet" not in ran.err


@pytest.mark.parametrize(
    ("end", "causes", "child"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", ["killed", "finished"], False),
        ("os.kill(os.getpid(), signal.SIGKILL)", ["killed", "finished"], True),
        ("raise ValueError('a bad row')", ["crash", "finished"], False),
        ("sys.exit(0)", ["finished"], False),
        ("sys.exit(0)", ["finished"], True),
        ("", ["finished"], False),
    ],
)
def test_a_pipe_hides_no_death(end: str, causes: list[str], child: bool, tmp_path) -> None:
    """`python train.py | tee log` ends with tee's exit code: a death is told by the notes, and the reason is said."""
    script = PULSE + (
        "import multiprocessing, os, signal, sys\nreport.watch_uncaught()\n"
        "def train():\n"
        "    report.note('train', step=0, pid=os.getpid())\n"
        "    report.beat(step=5, phase='loop')\n"
        "    if not os.path.exists('once'):\n"
        "        open('once', 'w').close()\n"
        f"        {end}\n        return\n"
        "    report.note('trained', step=9)\n"
    )
    script += (
        "child = multiprocessing.get_context('fork').Process(target=train)\nchild.start()\nchild.join()\n"
        if child
        else "train()\n"
    )
    ran = vl_run(tmp_path, "bash", "-c", f"{sys.executable} train.py | tee log", script=script)
    assert ran.code == 0
    assert ran.causes == causes
    assert ("`set -eo pipefail` there passes it on" in ran.err) == (len(causes) > 1)


def test_json_is_all_of_stdout(tmp_path) -> None:
    """--json prints one object, whatever the program prints, with the fields that scripts rely on."""
    ran = vl_run(tmp_path, script="print('hello')\nraise SystemExit(3)", options=("--json",))
    told = json.loads(ran.out)
    assert {name: told[name] for name in ("action", "cause", "code", "attempts", "step", "committed")} == {
        "action": "stop", "cause": "startup", "code": 5, "attempts": 1, "step": None, "committed": None,
    }  # fmt: skip
    assert set(told) >= {"command", "vault", "vault_source", "run_folder", "seconds", "detail", "reason"}
    assert "hello" in ran.err


def test_no_child_outlives_an_attempt(tmp_path) -> None:
    """Children are ended with the program, those in sessions of their own and orphans among them."""
    script = (
        "import os, subprocess, sys\n"
        'child = \'import os, time; os.fork() and os._exit(0); open(f"up-{os.getpid()}", "w"); time.sleep(600)\'\n'
        "for _ in range(2): subprocess.Popen([sys.executable, '-c', child], start_new_session=True)\n"
        "import glob, time\n"
        "while len(glob.glob('up-*')) < 2: time.sleep(0.01)\n"
        "os._exit(0)"
    )
    ran = vl_run(tmp_path, script=script)
    assert ran.code == 0
    pids = [int(path.name[3:]) for path in tmp_path.glob("up-*")]
    assert len(pids) == 2
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


@pytest.mark.parametrize("shell", [False, True])
def test_a_signal_reaches_the_program_and_its_end_is_waited_for(shell, tmp_path) -> None:
    """SIGTERM to `vl run` is the program's to answer, through a shell too; then it leaves with the code for that."""
    (tmp_path / "train.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (open('drained', 'w'), sys.exit(75)))\n"
        "open('up', 'w'); time.sleep(60)"
    )
    script = f"{sys.executable} train.py; exit $?"
    process = start(tmp_path, *(("sh", "-c", script) if shell else (sys.executable, "train.py")))
    await_file(tmp_path / "up", process)
    process.send_signal(signal.SIGTERM)
    ran = finish(process, tmp_path)
    assert ran.code == 75
    assert (tmp_path / "drained").exists()
    assert ran.actions == ["leave"]


def test_a_second_signal_ends_it_at_once(tmp_path) -> None:
    """A program that ignores the first Ctrl-C is killed at the second, and the exit code says interrupted."""
    (tmp_path / "train.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGINT, lambda *_: open('told', 'w'))\n"
        "open('up', 'w')\nwhile True: time.sleep(1)"
    )
    process = start(tmp_path, sys.executable, "train.py")
    await_file(tmp_path / "up", process)
    process.send_signal(signal.SIGINT)
    await_file(tmp_path / "told", process)
    process.send_signal(signal.SIGINT)
    ran = finish(process, tmp_path, timeout=30)
    assert ran.code == 130
    assert not leftovers(tmp_path)


def test_other_signals_are_passed_on_and_end_nothing(tmp_path) -> None:
    """SIGUSR1 is the program's own affair."""
    (tmp_path / "train.py").write_text(
        "import signal, sys, time\nsignal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))\n"
        "open('up', 'w'); time.sleep(60); sys.exit(9)"
    )
    process = start(tmp_path, sys.executable, "train.py")
    await_file(tmp_path / "up", process)
    process.send_signal(signal.SIGUSR1)
    assert finish(process, tmp_path, timeout=30).actions == ["done"]


def test_other_signals_are_passed_on_once(tmp_path) -> None:
    """The SIGUSR1 that an attempt was sent isn't sent to the next one, whose Python would die of it at its start."""
    (tmp_path / "train.py").write_text(
        "import os, signal, time\nif os.path.exists('up'): time.sleep(1); raise SystemExit(0)\n"
        "signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGKILL))\n"
        "open('up', 'w'); time.sleep(60)"
    )
    process = start(tmp_path, sys.executable, "train.py")
    await_file(tmp_path / "up", process)
    process.send_signal(signal.SIGUSR1)
    ran = finish(process, tmp_path, timeout=30)
    assert [line["signal"] for line in ran.lines("death")] == ["SIGKILL", None]


def test_silence_is_a_hang_with_stacks(tmp_path) -> None:
    """A program whose pulse stops is asked for its stacks, killed with all its threads, and started again."""
    script = PULSE + (
        "import os\nreport.note('train', output_dir='.', step=0, pid=os.getpid())\n"
        "for step in range(1, 9):\n    report.beat(step=step, phase='train'); time.sleep(0.02)\n"
        "def stuck_here():\n    time.sleep(600)\n"
        "if not os.path.exists('once'):\n    open('once', 'w'); stuck_here()\n"
        "report.beat(step=9, phase='train')"
    )
    ran = vl_run(tmp_path, script=script, options=("--hang-after", "1.5"))
    assert ran.code == 0
    assert ran.causes == ["hang", "finished"]
    assert "stuck_here" in (tmp_path / ".vl" / "attempt-0001" / "rank-0.stacks").read_text()


def test_a_hang_before_training_is_said_and_left_to_a_person(tmp_path) -> None:
    """Nobody can tell loading from a hang before the first step: it is said once, with stacks, and not ended."""
    script = (
        "import os, time\nfrom vaultlayer_hf.run.report import report\n"
        "report.note('hooked', pid=os.getpid(), stacks=report.open())\n"
        "def loads_for_long():\n    time.sleep(6)\nloads_for_long()"
    )
    ran = vl_run(tmp_path, script=script, options=("--hang-after", "1"))
    assert ran.code == 0
    assert ran.causes == ["finished"]
    assert [line["topic"] for line in ran.lines("notice")].count("late") == 1
    assert "no training has begun" in ran.err
    assert "loads_for_long" in (tmp_path / ".vl" / "attempt-0001" / "rank-0.stacks").read_text()


def test_a_program_that_gets_nowhere_is_given_up(tmp_path) -> None:
    """Deaths without progress are counted; the last line says how many, and the code that it doesn't help."""
    ran = vl_run(tmp_path, script="import os; os.kill(os.getpid(), 9)", options=("--give-up-after", "3"))
    assert ran.code == 5
    assert ran.causes == ["killed"] * 3
    assert ran.actions == ["restart", "restart", "stop"]
    assert "3 attempts in a row" in ran.err


def test_a_script_that_ends_itself_within_its_training_is_told_by_its_exit_code(tmp_path) -> None:
    """`sys.exit(3)` in a callback is no kill: the exit code is what is said, and it is started again."""
    script = PULSE + (
        "import os, sys\nreport.note('train', output_dir='.', step=0, pid=os.getpid())\n"
        "report.beat(step=7, phase='train')\n"
        "if not os.path.exists('once'):\n    open('once', 'w'); sys.exit(3)\n"
        "report.note('trained', step=9)\n"
    )
    ran = vl_run(tmp_path, script=script)
    assert (ran.code, ran.causes) == (0, ["crash", "finished"])
    assert ran.lines("death")[0]["detail"] == "it ended with exit code 3 after step 7"


def test_an_interruption_of_the_program_itself_is_no_kill(tmp_path) -> None:
    """A KeyboardInterrupt that nobody catches ends Python by SIGINT: somebody has asked, so it isn't started again."""
    ran = vl_run(tmp_path, script="raise KeyboardInterrupt")
    assert (ran.code, ran.causes, ran.actions) == (130, ["told"], ["leave"])


def test_where_the_hook_does_not_reach_is_said(tmp_path) -> None:
    """A program started with python -I is run all the same, and told to be out of reach."""
    (tmp_path / "train.py").write_text("print('ran')")
    ran = finish(start(tmp_path, sys.executable, "-I", "train.py"), tmp_path)
    assert ran.out == "ran\n"
    assert "can't be reached" in ran.err
    assert "-I" in ran.err


def test_usage_errors_are_one_line(tmp_path) -> None:
    """A program that doesn't exist, a vault that can't be meant and a bad configuration end with code 2."""
    ran = finish(start(tmp_path, "no-such-program"), tmp_path)
    assert (ran.code, ran.err.splitlines()[-1]) == (2, "vl: there is no program no-such-program")
    assert not (tmp_path / ".vl").exists(), "nothing is made for it"
    ran = finish(start(tmp_path, "true", options=("--vault", "ftp://x")), tmp_path)
    assert ran.code == 2
    (tmp_path / "vaultlayer.toml").write_text("keep_lats = 3")
    ran = finish(start(tmp_path, "true"), tmp_path)
    assert ran.code == 2
    assert "no option keep_lats: did you mean keep_last?" in ran.err


def test_the_vault_is_found_where_the_order_says(tmp_path, monkeypatch) -> None:
    """The option, then the variable, then the nearest configuration, then a folder of this very command."""
    from vaultlayer_hf.run.vaults import choose_vault

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VAULTLAYER_VAULT", raising=False)
    monkeypatch.delenv("VAULTLAYER_RUN_DIR", raising=False)
    (tmp_path / "sub").mkdir()
    script = tmp_path / "sub" / "train.py"
    script.touch()
    command = ["torchrun", str(script)]
    found = choose_vault(None, command)
    assert found.source == "default"
    assert Path(found.uri).parent == tmp_path / "sub" / ".vl"
    assert choose_vault(None, command).uri == found.uri
    assert choose_vault(None, [*command, "--lr", "1"]).uri != found.uri, "another command line is another run"
    assert choose_vault(None, [*command, "--lr", "1"]).other is None, "nothing was trained yet"
    bare = choose_vault(None, [str(script), "--seed", "1"])
    (Path(bare.uri) / "log").mkdir(parents=True)
    for python in ("python", "python3", "/usr/bin/python3.12", sys.executable):
        alike = choose_vault(None, [python, str(script), "--seed", "1"])
        assert (alike.uri, alike.other) == (bare.uri, None), "one program, however its Python is named"
    assert choose_vault(None, command).other == Path(bare.uri), "said, since this one begins at step 0"
    (Path(found.uri) / "log").mkdir(parents=True)
    assert choose_vault(None, command).other is None, "it goes on"
    (tmp_path / "pyproject.toml").write_text(
        '[tool.vaultlayer]\nvault = "s3://bucket/config"\nkeep_last = 7\n'
    )
    found = choose_vault(None, command)
    assert (found.uri, found.source, found.variables) == (
        "s3://bucket/config", "config", {"VAULTLAYER_KEEP_LAST": "7"},
    )  # fmt: skip
    monkeypatch.setenv("VAULTLAYER_VAULT", "s3://bucket/variable")
    assert choose_vault(None, command).source == "variable"
    assert choose_vault("s3://bucket/option", command).uri == "s3://bucket/option"


@pytest.mark.slow
def test_a_suspended_machine_is_no_hang(tmp_path) -> None:
    """Where `vl run` itself was stopped for a while, with all it watches, the silence is nobody's fault."""
    script = PULSE + (
        "for step in range(40):\n    report.beat(step=step, phase='train'); time.sleep(0.05)\n"
        "open('up', 'w')\nwhile not __import__('os').path.exists('go'): time.sleep(0.01)\n"
        "report.beat(step=41, phase='train')"
    )
    (tmp_path / "train.py").write_text(script)
    process = start(tmp_path, sys.executable, "train.py", options=("--hang-after", "4"))
    await_file(tmp_path / "up", process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(6)
    process.send_signal(signal.SIGCONT)
    time.sleep(1)
    (tmp_path / "go").touch()
    assert finish(process, tmp_path, timeout=30).causes == ["finished"]
    assert os.path.exists(tmp_path / ".vl")


def test_a_python_of_another_environment_is_named_where_a_module_is_missing(tmp_path) -> None:
    """`vl run -- python train.py` with vl of an environment that isn't activated says which Python it was."""
    other = tmp_path / "bin" / "python3"
    other.parent.mkdir()
    other.symlink_to(sys.executable)
    (tmp_path / "train.py").write_text("import nothing_like_it")
    said = finish(start(tmp_path, str(other), "train.py"), tmp_path)
    assert said.code == 5
    assert f"{other} is {other}, and vl belongs to {sys.executable}: activate that environment" in said.err
    assert "vl belongs to" not in finish(start(tmp_path, sys.executable, "train.py"), tmp_path).err


def test_a_run_folder_has_a_name_that_can_be_typed(tmp_path) -> None:
    """A second command of a folder has a run folder of its own, whatever characters the command has."""
    for line in ("exit 0", "echo 'x y' | cat; exit 0"):
        ran = finish(start(tmp_path, "bash", "-c", line), tmp_path)
        assert ran.code == 0
    (second,) = (path.name for path in (tmp_path / ".vl").glob("*-????????"))
    assert re.fullmatch(r"[\w.-]+", second)
