"""A warm restart of ranks: what they can't be told from, how they end, and when they start cold after all."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.run.programs import Ran, finish, plain, start, torchrun, vl_run
from tests.run.test_spare import LOOKS, TRAINS, library, said
from vaultlayer_hf.run.inside.startup.vaultlayer_reads import Reads, named_in_libraries

LAUNCHER = textwrap.dedent(
    """
    import os, signal, subprocess, sys
    signal.signal(signal.SIGHUP, lambda *_: None)  # as torchrun: its ranks then have the default, also under nohup
    folder = os.environ.get("VAULTLAYER_RUN_RANKS")
    attempt = os.environ["VAULTLAYER_RUN_ATTEMPT"][-1]
    ranks = []
    for rank in range(2):
        more = {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": "400" + attempt}
        ranks.append(subprocess.Popen(
            [f"{folder}/python", "-u", "train.py", *sys.argv[1:]], start_new_session=True,
            env={**os.environ, "VAULTLAYER_RUN_PYTHON": sys.executable, **more},
        ))
    exec(os.environ.get("AFTER", ""))
    codes = [one.wait() for one in ranks]
    print("CODES", codes, flush=True)
    sys.exit(any(codes))
    """
)
"""A launcher that starts two ranks as torchrun does, and none of torchrun's five seconds."""

RANK = f"import ctypes, socket\n{TRAINS}\nready = 'that forks ranks'\nrank = int(os.environ['RANK'])\n"
"""The begin of a script that is a rank's. What talks to other ranks imports these two."""


ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch")
LAUNCHERS = {
    "torchrun": torchrun(2),
    "accelerate": (*ACCELERATE, "--multi_gpu", "--num_processes", "2"),
    "accelerate, one process": (*ACCELERATE, "--cpu", "--num_processes", "1"),
}


def ranks(folder: Path, script: str, *, prefix: Sequence[str] = (), **more: str) -> Ran:
    """Run a script as two ranks under `vl run`; rank 0 is to die in the first attempt."""
    (folder / "launch.py").write_text(LAUNCHER)
    (folder / "train.py").write_text(script)
    ran = finish(start(folder, sys.executable, "launch.py", prefix=prefix, spare=True, **more), folder)
    print(ran.out[-3000:])
    return ran


def cold(ran: Ran) -> list[str]:
    """Why ranks of the second attempt started cold; of two that were forked nothing is noted."""
    return [line["reason"] for rank in (0, 1) for line in ran.notes(2, "cold", rank)]


def test_a_rank_sees_what_it_sees_in_a_cold_start(tmp_path) -> None:
    """All that a process can see of itself but its parent's pid and what gc has frozen; random numbers are its own.

    Under `nohup`, whose ignored SIGHUP a launcher that handles it doesn't hand down.
    """
    script = f"{LOOKS}\n{RANK}\n" + textwrap.dedent(
        """
        seen = look()
        import numpy
        more = [numpy.random.random(), threading.main_thread().native_id == os.getpid()]
        with open("seen", "a") as file:
            file.write(json.dumps([attempt(), rank, seen, more]) + "\\n")
        train_a_step(ready)
        """
    )
    ran = ranks(tmp_path, script, prefix=["nohup"], OMP_NUM_THREADS="2")
    assert (ran.code, cold(ran)) == (0, [])
    seen = {
        (at, rank): (look, more)
        for at, rank, look, more in map(json.loads, (tmp_path / "seen").read_text().splitlines())
    }
    for rank in (0, 1):
        before, now = seen[1, rank][0], seen[2, rank][0]
        assert now["environment"].pop("MASTER_PORT") == "4002"
        assert before["environment"].pop("MASTER_PORT") == "4001"
        assert (now["environment"]["RANK"], now.pop("parent") > 1, before.pop("parent") > 1) == (
            str(rank),
            True,
            True,
        )
        # Modules are frozen, so that ranks go on sharing them.
        (before["collection"].pop(), now["collection"].pop())
        for what in before:
            assert now[what] == before[what], what
        assert seen[2, rank][1][1:] == seen[1, rank][1][1:] == [True]
    assert len({more[0] for _, more in seen.values()}) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deed", "code"),
    [("os._exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", -9), ("os.abort()", -6)],
    ids=["exit", "killed", "aborted"],
)
def test_the_launcher_sees_how_a_rank_ends(deed, code, tmp_path) -> None:
    """Its exit code, or the signal that ended it, as if it were the launcher's own child."""
    script = f"{RANK}\nif attempt() == 2 and rank == 1: {deed}\ntrain_a_step(ready)\n"
    ran = ranks(tmp_path, script)
    assert cold(ran) == []
    assert f"CODES [0, {code}]" in ran.out


def test_signals_reach_a_rank_and_its_stand_in_takes_it_along(tmp_path) -> None:
    """What the launcher sends is handled in the rank; where the launcher kills, nothing of the rank stays."""
    script = RANK + textwrap.dedent(
        """
        def told(number, frame):
            print(f"TOLD {rank}", flush=True)  # one write: the other rank prints to the same pipe, unbuffered
            sys.exit(3)
        if attempt() == 2:
            if rank == 0:
                signal.signal(signal.SIGTERM, told)
            open(f"pid-{rank}", "w").write(str(os.getpid()))
            os.rename(f"pid-{rank}", f"here-{rank}")
            time.sleep(60)
        train_a_step(ready)
        """
    )
    after = textwrap.dedent(
        """
        import time
        while attempt == "2" and not (os.path.exists("here-0") and os.path.exists("here-1")):
            time.sleep(0.02)
        if attempt == "2":
            os.killpg(ranks[0].pid, 15)
            os.killpg(ranks[1].pid, 9)
            end = time.monotonic() + 20
            while os.path.exists("/proc/" + open("here-1").read()) and time.monotonic() < end:
                time.sleep(0.02)
            print("GONE", not os.path.exists("/proc/" + open("here-1").read()), flush=True)
        """
    )
    ran = ranks(tmp_path, script, AFTER=after)
    assert cold(ran) == []
    assert "TOLD 0" in ran.out
    assert "CODES [3, -9]" in ran.out
    assert "GONE True" in ran.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deed", "why"),
    [
        ("os.environ['OTHER'] = attempt", "the environment has changed: OTHER"),
        ("sys.argv.append(attempt)", "other arguments"),
        ("os.umask(0o70 + int(attempt))", "Umask differs"),
        ("os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]} if attempt == '2' else "
         "os.sched_getaffinity(0))", "Cpus_allowed differs"),
        ("open('site-packages/light.py', 'a').write('#\\n')", "light.py has changed"),
    ],
    ids=["environment", "arguments", "umask", "cores", "library"],
)  # fmt: skip
def test_what_would_not_be_the_same_starts_cold(deed, why, tmp_path) -> None:
    """A rank that a launcher starts in another way than before isn't forked; its notes say why."""
    if "affinity" in deed and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("there is one core only")
    path = library(tmp_path, "light", "version = 1\n")
    script = f"{RANK}\nimport light\ntrain_a_step(ready)\n"
    (tmp_path / "launch.py").write_text(LAUNCHER.replace("ranks = []", f"{deed}\nranks = []"))
    (tmp_path / "train.py").write_text(script)
    ran = finish(start(tmp_path, sys.executable, "launch.py", spare=True, PYTHONPATH=path), tmp_path)
    assert (ran.code, ran.causes) == (0, ["killed", "finished"])
    assert len(cold(ran)) == 2
    assert all(why in reason for reason in cold(ran))


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["SIGKILL", "SIGSTOP"])
def test_a_template_that_is_gone_or_hangs_means_a_cold_start(fate, tmp_path) -> None:
    """The ranks do without it."""
    script = f"{RANK}\ntrain_a_step(ready)\n".replace(
        "os.kill(", "rank == 0 and fell_template(); os.kill("
    ).replace(
        "def wait_for",
        textwrap.dedent(
            f"""
            def fell_template():
                import glob
                for path in glob.glob("/proc/[0-9]*/cmdline"):
                    pid = int(path.split("/")[2])
                    with open(path) as file:
                        same = file.read() == open("/proc/self/cmdline").read()
                    if same and open(f"/proc/{{pid}}/oom_score_adj").read().strip() == "1000":
                        os.kill(pid, signal.{fate})

            def wait_for"""
        ),
    )
    ran = ranks(tmp_path, script)
    assert (ran.code, ran.causes) == (0, ["killed", "finished"])
    assert len(ran.notes(2, "train", 0)) == 1
    if fate == "SIGSTOP":
        assert len(cold(ran)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["of Python", "of C"])
def test_a_thread_that_an_import_starts_runs_in_each_rank(known, tmp_path) -> None:
    """A fork would lose it: one of Python's is left to each rank, one that only the kernel knows means cold starts."""
    start = (
        "threading.Thread(target=time.sleep, args=(300,), daemon=True).start()"
        if known
        else "_thread.start_new_thread(time.sleep, (300,))"
    )
    path = library(tmp_path, "busy", f"import threading, _thread, time\n{start}\n")
    then = "ready" if known else "'which a fork would lose'"
    count = "print('THREADS', len(os.listdir('/proc/self/task')), flush=True)"
    ran = ranks(tmp_path, f"{RANK}\nimport busy\n{count}\ntrain_a_step({then})\n", PYTHONPATH=path)
    assert (ran.code, ran.causes, cold(ran)) == (0, ["killed", "finished"], [])
    assert ran.out.count("THREADS 2") == 4
    assert any("which a fork would lose" in text for text in said(ran)) == (not known)


@pytest.mark.slow
def test_a_library_that_reads_its_rank_is_left_to_each_rank(tmp_path) -> None:
    """What is imported from there on is imported by each rank for itself; what came before is warm, its pid renewed."""
    path = library(tmp_path, "ranked", "import os\nrank = int(os.environ['RANK'])\n")
    library(tmp_path, "light", "import os\nby = this_pid = os.getpid()\n")
    script = RANK + textwrap.dedent(
        """
        import light, ranked
        line = f"SEEN {attempt()} {ranked.rank == rank} {light.by == os.getpid()} {light.this_pid == os.getpid()}"
        os.write(1, f"{line}\\n".encode())  # at once: two ranks write here
        """
    )
    ran = ranks(tmp_path, script + "train_a_step(ready)\n", PYTHONPATH=path)
    assert (ran.code, cold(ran)) == (0, [])
    assert (
        sorted(line for line in ran.out.splitlines() if "SEEN" in line)
        == ["SEEN 1 True True True"] * 2 + ["SEEN 2 True False True"] * 2
    )


def test_reads_of_the_environment_are_told_from_searches(monkeypatch) -> None:
    """A read by name counts, and a copy that a module keeps; a look through all names doesn't, and all stays there."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("MASTER_PORT", "4001")
    monkeypatch.setenv("OTHER", "1")
    reads = Reads(frozenset({"RANK", "MASTER_PORT"}))
    deeds = [
        (lambda: os.environ.get("RANK"), {"RANK"}),
        (lambda: "MASTER_PORT" in os.environ, {"MASTER_PORT"}),
        (lambda: os.environ["OTHER"], set()),
        (lambda: {key: value for key, value in os.environ.items() if key.startswith("TQDM")}, set()),
        (lambda: (dict(os.environ), os.environ["RANK"]), {"RANK"}),
        (lambda: os.environ.update(NEW="1"), set()),
    ]
    for deed, found in deeds:
        reads.begin()
        deed()
        assert reads.end() == found
    assert os.environ.pop("NEW") == "1"
    module = type(os)("keeps")
    module.__dict__["copy"] = dict(os.environ)
    assert reads.kept([os, module]) == {"RANK", "MASTER_PORT"}
    module.copy = {"MASTER_PORT": "4001", "RANK": "3"}  # a part of it; a number may be there by chance
    assert reads.kept([os, module]) == {"MASTER_PORT"}
    assert reads.kept([os]) == set()


def test_what_a_library_in_c_may_read_is_found_in_it() -> None:
    """Names of variables that stand in a library which is loaded here, and no others."""
    assert named_in_libraries({"PYTHONHASHSEED", "NOBODY_READS_" + "THIS_ONE"}) == {"PYTHONHASHSEED"}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", list(LAUNCHERS), ids=["torchrun", "accelerate", "one_process"])
def test_killed_ranks_go_on_warm_to_the_same_weights(launcher, tmp_path) -> None:
    """Two ranks of a Trainer's script, forked in the restart, end with every bit of an unbroken run's weights.

    So does the one process that `accelerate launch` starts where there is one GPU or none.
    """
    command = [*LAUNCHERS[launcher], "train.py"]
    wait = (
        "import time; end = time.monotonic() + 100\n"
        "while 'that forks ranks' not in open('.vl/journal.jsonl').read() and time.monotonic() < end:\n"
        "    time.sleep(0.05)\n"
        "os.kill(os.getpid(), 9)"
    )
    fate = {"FATE": f"7 {wait}", "FATE_ONCE": str(tmp_path / "once"), "FATE_RANK": "0"}
    ran = vl_run(tmp_path, *command, spare=True, **fate)
    assert (ran.code, ran.causes, cold(ran)) == (0, ["killed", "finished"], [])
    assert [len(ran.notes(2, "train", rank)) for rank in (0, 1)] == [1, int("one" not in launcher)]
    assert "one" in launcher or "Root Cause" in ran.err  # torchrun's own words, which it ends behind
    unbroken = plain(tmp_path / "plain", *command)
    assert (ran.weights, ran.losses) == (unbroken.weights, unbroken.losses)


@pytest.mark.slow
def test_the_launchers_own_restart_is_warm(tmp_path) -> None:
    """torchrun --max-restarts: the agent starts both ranks again within one attempt, and both are forked."""
    script = RANK + textwrap.dedent(
        """
        import gc
        round = os.environ["TORCHELASTIC_RESTART_COUNT"]
        open(f"{round}-{rank}", "w").write(str(gc.get_freeze_count() > 0))
        if round == "0":
            if rank == 0:
                train_a_step(ready)
            time.sleep(60)
        """
    )
    ran = vl_run(tmp_path, *torchrun(2), "--max-restarts=1", "train.py", script=script, spare=True)
    assert (ran.code, ran.causes) == (0, ["finished"])
    assert [line["reason"] for rank in (0, 1) for line in ran.notes(1, "cold", rank)] == []
    forked = {path.name: path.read_text() for path in tmp_path.glob("?-?")}
    assert forked == {"0-0": "False", "0-1": "False", "1-0": "True", "1-1": "True"}
