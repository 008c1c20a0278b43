"""A warm restart: what it can't be told from, and when it is a cold start after all."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from tests.run.programs import Ran, finish, plain, start, vl_run
from vaultlayer_hf.run.inside.startup.vaultlayer_effects import Packages

TRAINS = textwrap.dedent(
    """
    import os, signal, sys, time

    def attempt():
        return int(os.environ["VAULTLAYER_RUN_ATTEMPT"][-4:])

    def train_a_step(then=None):
        # What a seam tells `vl run`; here without torch, so that a test takes a second.
        from vaultlayer_hf.run.report import report
        report.note("train", seam="loop", output_dir="out", max_steps=2, step=0, vault=None, pid=os.getpid())
        report.beat(step=attempt(), phase="loop")
        if attempt() == 1:
            wait_for("an interpreter is kept ready" if then is None else then)
            os.kill(os.getpid(), signal.SIGKILL)

    def wait_for(text):
        end = time.monotonic() + 100
        while text not in open(".vl/journal.jsonl").read():
            assert time.monotonic() < end, text
            time.sleep(0.02)
    """
)
"""A script that dies of SIGKILL in its first attempt, once a spare is ready or something else was said."""

LOOKS = textwrap.dedent(
    """
    import sys
    modules = sorted(sys.modules)
    import atexit, gc, json, locale, os, resource, signal, threading, warnings
    def look():
        import __main__
        return {
            "modules": modules,
            "main": [
                __name__, getattr(__spec__, "name", None), getattr(__spec__, "origin", None),
                repr(__builtins__)[:30], sorted(vars(__main__)), __main__.__package__,
            ],
            "file": __file__,
            "argv": [sys.argv, sys.orig_argv, open("/proc/self/cmdline").read()],
            "path": sys.path, "flags": repr(sys.flags), "options": sys._xoptions, "prefix": sys.prefix,
            "executable": sys.executable,
            "cwd": os.getcwd(), "umask": os.umask(0o22),
            "environment": {k: v for k, v in os.environ.items() if not k.startswith("VAULTLAYER_RUN_")},
            "own": sorted(k for k in os.environ if k.startswith("VAULTLAYER_RUN_") and k != "VAULTLAYER_RUN_IMPORTS"),
            "streams": [
                (s.name, s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty())
                for s in (sys.stdin, sys.stdout, sys.stderr)
            ],
            "stdin": sys.stdin.read(),
            "files": sorted(os.listdir("/proc/self/fd")),
            "signals": [repr(signal.getsignal(n)).split(" at ")[0] for n in sorted(signal.valid_signals())],
            "mask": repr(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "exits": atexit._ncallbacks(), "filters": repr(warnings.filters),
            "collection": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
            "recursion": sys.getrecursionlimit(), "hooks": [sys.excepthook.__name__, len(sys.path_hooks)],
            "threads": [len(os.listdir("/proc/self/task")), threading.current_thread().name],
            "priority": os.getpriority(os.PRIO_PROCESS, 0), "scheduling": os.sched_getscheduler(0),
            "cores": sorted(os.sched_getaffinity(0)), "memory": open("/proc/self/oom_score_adj").read(),
            "session": os.getsid(0) == os.getpid(), "parent": os.getppid(), "locale": locale.setlocale(locale.LC_ALL),
            "limits": [resource.getrlimit(n) for n in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE)],
            "randomized": sys.flags.hash_randomization, "switch": sys.getswitchinterval(),
        }
    """
)
"""A script that looks at all that a process can see of itself, before it has imported anything and after."""


def both(folder: Path, script: str, *command: str, **more: str) -> tuple[Ran, list[dict]]:
    """Run a script that prints a line SEEN in each of two attempts; return what it has seen."""
    ran = vl_run(folder, *command, script=script, spare=True, **more)
    print(ran.out[-3000:])
    assert ran.code == 0
    assert ran.causes == ["killed", "finished"]
    return ran, [json.loads(line[5:]) for line in ran.out.splitlines() if line.startswith("SEEN ")]


def warm(ran: Ran) -> list[bool]:
    """Whether each attempt was a warm start."""
    return [line["warm"] for line in ran.lines("start")]


def said(ran: Ran) -> list[str]:
    """What was said about spares."""
    return [line["message"] for line in ran.lines("notice") if line["topic"] == "spare"]


def library(folder: Path, name: str, text: str) -> str:
    """Make a library as one that is installed; return the PYTHONPATH that has it."""
    place = folder / "site-packages"
    place.mkdir(exist_ok=True)
    (place / f"{name}.py").write_text(textwrap.dedent(text))
    return os.pathsep.join([str(place), os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2])])


@pytest.mark.parametrize(
    "command",
    [
        ("train.py", "--rate", "1 2"),
        pytest.param(
            ("-u", "-W", "error::DeprecationWarning", "-X", "dev", "-O", "train.py"), marks=pytest.mark.slow
        ),
        pytest.param(("-m", "train", "x"), marks=pytest.mark.slow),
        pytest.param(("-P", "train.py"), marks=pytest.mark.slow),
    ],
    ids=["script", "options", "module", "safe-path"],
)
def test_the_script_sees_what_it_sees_in_a_cold_start(command, tmp_path) -> None:
    """Everything that a process can see of itself, as a script and as a module, with Python's options.

    But for what gc has frozen.
    """
    script = f"{LOOKS}\n{TRAINS}\nprint('SEEN', json.dumps(look()), flush=True)\ntrain_a_step()\n"
    ran, (cold, hot) = both(tmp_path, script, sys.executable, *command)
    assert warm(ran) == [False, True]
    assert (cold["collection"].pop(), hot["collection"].pop() > 0) == (0, True)
    for what in cold:
        assert hot[what] == cold[what], what


def test_classes_of_the_script_pickle_and_spawned_processes_find_them(tmp_path) -> None:
    """multiprocessing's spawn imports the script again as __mp_main__, and __main__'s classes come through."""
    script = TRAINS + textwrap.dedent(
        """
        import json, multiprocessing, pickle

        class Point:
            def __init__(self, at):
                self.at = at

        def double(point):
            return Point((2 * point.at, __name__, type(point).__module__))

        if __name__ == "__main__":
            again = pickle.loads(pickle.dumps(Point(3)))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                doubled = pool.map(double, [again])[0]
            print("SEEN", json.dumps([type(again) is Point, type(again).__module__, doubled.at]), flush=True)
            train_a_step()
        """
    )
    ran, (cold, hot) = both(tmp_path, script)
    assert warm(ran) == [False, True]
    assert hot == cold == [True, "__main__", [6, "__mp_main__", "__mp_main__"]]


def test_a_library_does_at_its_import_what_it_would_do_then(tmp_path) -> None:
    """Its output, warnings, variables, filters and exit functions come where the script imports it, and not before."""
    path = library(
        tmp_path,
        "noisy",
        """
        import atexit, os, sys, warnings
        print("noisy is here", flush=True)
        os.write(2, b"noisy says so\\n")
        warnings.warn("noisy is old")
        warnings.filterwarnings("ignore", message="of noisy")
        seen = os.environ.get("BEFORE_NOISY")
        os.environ["OF_NOISY"] = "1"
        @atexit.register
        def leave():
            print("noisy leaves", flush=True)
        """,
    )
    script = TRAINS + textwrap.dedent(
        """
        import atexit, json, warnings
        atexit.register(lambda: print("the script leaves", flush=True))
        os.environ["BEFORE_NOISY"] = "yes"
        before = ["noisy" in sys.modules, "OF_NOISY" in os.environ, atexit._ncallbacks(), len(warnings.filters)]
        print("SEEN", json.dumps("before"), flush=True)
        import noisy
        after = [noisy.seen, "noisy" in sys.modules, os.environ["OF_NOISY"], str(warnings.filters[0][1])]
        print("SEEN", json.dumps([before, after, noisy.__spec__.name, noisy.__file__]), flush=True)
        train_a_step()
        """
    )
    ran, (*cold, hot_before, hot) = both(tmp_path, script, PYTHONPATH=path)
    assert warm(ran) == [False, True]
    assert [hot_before, hot] == cold
    assert hot[0][:2] == [False, False]
    parts = ran.out.split('SEEN "before"')  # behind what comes with the import, in both attempts
    assert ["noisy is here" in part for part in parts] == [False, True, True]
    assert parts[2].index("noisy leaves") < parts[2].index("the script leaves")
    for attempt in (1, 2):
        text = (tmp_path / ".vl" / f"attempt-000{attempt}" / "output.log").read_text()
        assert text.count("noisy says so") == text.count("UserWarning: noisy is old") == 1


def test_what_appears_in_a_package_is_found_once() -> None:
    """A submodule or a name made when needed, of a package that was there before; plain modules don't count."""
    package, module = ModuleType("package"), ModuleType("module")
    package.__path__ = []
    packages = Packages([package, module])
    package.late, module.late = "made when needed", 1
    assert packages.new([]) == [(package, "late", "made when needed")]
    assert packages.new([]) == []
    other = ModuleType("package.other")
    other.__path__ = []
    package.other = other
    assert packages.new([other]) == [(package, "other", other)]
    other.deep = 2
    assert packages.new([]) == [(other, "deep", 2)]


def test_warnings_that_the_script_has_silenced_stay_silent(tmp_path) -> None:
    """A filter that is set before the library is imported holds for what the library warns of at its import."""
    path = library(tmp_path, "noisy", "import warnings\nwarnings.warn('noisy is old')\n")
    script = TRAINS + "import warnings\nwarnings.filterwarnings('ignore')\nimport noisy\ntrain_a_step()\n"
    ran = vl_run(tmp_path, script=script, spare=True, PYTHONPATH=path)
    assert warm(ran) == [False, True]
    assert "noisy is old" not in ran.err


def test_nothing_of_the_users_own_runs_beforehand(tmp_path) -> None:
    """A module beside the script runs once an attempt; the libraries that it imports are imported beforehand."""
    path = library(tmp_path, "light", "import os\nopen('light', 'a').write(f'{os.getpid()} ')\n")
    (tmp_path / "mine.py").write_text("import os, light\nopen('mine', 'a').write(f'{os.getpid()} ')\n")
    ran = vl_run(tmp_path, script=f"{TRAINS}\nimport mine\ntrain_a_step()\n", spare=True, PYTHONPATH=path)
    pids = [str(line["pid"]) for line in ran.lines("start")]
    assert warm(ran) == [False, True]
    assert (tmp_path / "mine").read_text().split() == pids
    assert (tmp_path / "light").read_text().split()[:2] == pids


def test_a_library_whose_file_has_changed_means_a_cold_start(tmp_path) -> None:
    """What is on the disk now is what runs, and it is said."""
    path = library(tmp_path, "light", "version = 1\n")
    script = TRAINS.replace(
        "os.kill(", "open('site-packages/light.py', 'w').write('version = 23\\n'); os.kill("
    ) + textwrap.dedent(
        """
        import json, light
        print("SEEN", json.dumps(light.version), flush=True)
        train_a_step()
        """
    )
    ran, seen = both(tmp_path, script, PYTHONPATH=path)
    assert (seen, warm(ran)) == ([1, 23], [False, False])
    assert any("light.py has changed" in text for text in said(ran))


def test_another_environment_at_an_import_means_a_cold_start(tmp_path) -> None:
    """A library that is imported with another value of a variable than before reads the new one, and it is said."""
    path = library(tmp_path, "light", "import os\nseen = os.environ['FOR_LIGHT']\n")
    script = TRAINS + textwrap.dedent(
        """
        import json
        os.environ["FOR_LIGHT"] = str(attempt())
        import light
        print("SEEN", json.dumps(light.seen), flush=True)
        train_a_step()
        """
    )
    ran, seen = both(tmp_path, script, PYTHONPATH=path)
    assert seen == ["1", "2"]
    assert any("FOR_LIGHT" in text and "cold" in text for text in said(ran))


def test_a_module_that_comes_to_hide_a_library_means_a_cold_start(tmp_path) -> None:
    """A file of a library's name that has appeared beside the script is what Python would import, so it does."""
    path = library(tmp_path, "light", "mine = False\n")
    script = TRAINS.replace(
        "os.kill(", "open('light.py', 'w').write('mine = True\\n'); os.kill("
    ) + textwrap.dedent(
        """
        import json, light
        print("SEEN", json.dumps(light.mine), flush=True)
        train_a_step()
        """
    )
    ran, seen = both(tmp_path, script, PYTHONPATH=path)
    assert seen == [False, True]
    assert any("is found in" in text for text in said(ran))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import random\nrandom.random()\n", "random numbers"),
        pytest.param(
            "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)\n",
            "signal handlers",
            marks=pytest.mark.slow,
        ),
        pytest.param("import logging\nlogging.basicConfig()\n", "the root logger", marks=pytest.mark.slow),
        pytest.param("import sys\nsys.path.append('/nowhere')\n", "sys.path", marks=pytest.mark.slow),
        ("import subprocess\nheld = subprocess.Popen(['sleep', '20'])\n", "child processes"),
        pytest.param(
            "import os, threading, time\nopen('strange', 'a').write(f'{os.getpid()} ')\n"
            "threading.Thread(target=time.sleep, args=(20,), daemon=True).start()\n",
            "threads",
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: value.split()[-1] if "\n" not in value else "",
)
def test_an_import_that_cannot_be_taken_back_is_left_to_the_script(text, what, tmp_path) -> None:
    """A spare comes to wait before it, and the script does it in its own order; what came before is warm."""
    path = library(tmp_path, "strange", text)
    library(tmp_path, "light", "import os\nby = os.getpid()\nopen('light', 'a').write(f'{by} ')\n")
    script = TRAINS + "import random, signal, logging, light, strange\ntrain_a_step()\n"
    ran = vl_run(tmp_path, script=script, spare=True, PYTHONPATH=path)
    assert (ran.code, warm(ran)) == (0, [False, True])
    assert str(ran.lines("start")[1]["pid"]) in (tmp_path / "light").read_text().split()


@pytest.mark.slow
def test_a_killed_training_goes_on_warm_to_the_same_weights(tmp_path) -> None:
    """The restart of a Trainer's script out of a spare ends with every bit of an unbroken run's weights and losses."""
    wait = (
        "import time; end = time.monotonic() + 100\n"
        "while 'is kept ready' not in open('.vl/journal.jsonl').read() and time.monotonic() < end: time.sleep(0.05)\n"
        "os.kill(os.getpid(), 9)"
    )
    ran = vl_run(tmp_path, spare=True, FATE=f"7 {wait}", FATE_ONCE=str(tmp_path / "once"))
    assert (ran.code, ran.causes, warm(ran)) == (0, ["killed", "finished"], [False, True])
    assert ran.notes(2, "hooked")
    assert ran.notes(2, "train")[0]["step"] == 6
    unbroken = plain(tmp_path / "plain")
    assert (ran.weights, ran.losses) == (unbroken.weights, unbroken.losses)


@pytest.mark.parametrize("way", ["option", "configuration"])
def test_no_spare_is_kept_where_none_is_wanted(way, tmp_path) -> None:
    """`--no-spare`, or `spare = false` in vaultlayer.toml: cold starts, and nothing is said of spares."""
    (tmp_path / "vaultlayer.toml").write_text("spare = false\n" if way == "configuration" else "")
    options = ("--no-spare",) if way == "option" else ()
    script = TRAINS + "train_a_step('attempt-0001')\n"
    ran = vl_run(tmp_path, script=script, options=options, spare=True)
    assert (ran.code, warm(ran), said(ran)) == (0, [False, False], [])


def test_a_shell_script_is_not_run_beforehand(tmp_path) -> None:
    """What stands before Python in a shell script would be done twice: it starts cold."""
    (tmp_path / "go.sh").write_text(f"echo here >> lines\n{sys.executable} train.py\n")
    ran = vl_run(tmp_path, "bash", "go.sh", script=TRAINS + "train_a_step('attempt-0001')\n", spare=True)
    assert (ran.code, warm(ran)) == (0, [False, False])
    assert (tmp_path / "lines").read_text().split() == ["here", "here"]


@pytest.mark.parametrize("fate", ["killed", pytest.param("hangs", marks=pytest.mark.slow)])
def test_a_spare_that_is_gone_or_hangs_means_a_cold_start(fate, tmp_path) -> None:
    """The run goes on without it, and says why."""
    path = library(
        tmp_path,
        "light",
        """
        import os, signal, time
        if os.path.exists("second") and fate == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        while os.path.exists("second") and fate == "hangs":
            time.sleep(1)
        open("second", "w").close()
        """.replace("fate ==", f"{fate!r} =="),
    )
    then = "by itself" if fate == "killed" else "attempt-0001"
    script = f"{TRAINS}\nif attempt() == 2: os.remove('second')\nimport light\ntrain_a_step({then!r})\n"
    script = script.replace(
        "os.kill(os.getpid(), signal.SIGKILL)", "time.sleep(1.5); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = vl_run(tmp_path, script=script, spare=True, PYTHONPATH=path)
    assert (ran.code, ran.causes, warm(ran)) == (0, ["killed", "finished"], [False, False])
    assert any(("by itself" if fate == "killed" else "the end of its imports") in text for text in said(ran))


SLOW_LIBRARY = "import os, time\nopen('begun', 'a').write(f'{os.getpid()} ')\ntime.sleep(2.5)\n"
BEGUN = "while open('begun').read().count(' ') < 2: time.sleep(0.01)\n"
"""Waits until a spare has begun to import the slow library, behind the first attempt."""


def test_a_spare_that_still_imports_when_its_turn_comes_is_waited_for(tmp_path) -> None:
    """It is further than a cold start would be."""
    path = library(tmp_path, "slow", SLOW_LIBRARY)
    script = (
        TRAINS.replace(
            "        os.kill(", textwrap.indent(BEGUN, " " * 8) + "        time.sleep(2.2); os.kill("
        )
        + "import slow\ntrain_a_step('attempt-0001')\n"
    )
    ran = vl_run(tmp_path, script=script, spare=True, PYTHONPATH=path)
    assert (ran.code, ran.causes, warm(ran)) == (0, ["killed", "finished"], [False, True])


@pytest.mark.slow
def test_a_spare_that_has_only_begun_is_not_waited_for_and_serves_the_start_after(tmp_path) -> None:
    """A cold start imports all of it as soon, and begins at once. The same spare is ready when that one dies."""
    path = library(tmp_path, "slow", SLOW_LIBRARY)
    kill = "        os.kill(os.getpid(), signal.SIGKILL)\n"
    again = f"    if attempt() == 2:\n        wait_for('is kept ready')\n{kill}"
    script = TRAINS.replace(kill, textwrap.indent(BEGUN, " " * 8) + kill + again)
    ran = vl_run(
        tmp_path, script=script + "import slow\ntrain_a_step('attempt-0001')\n", spare=True, PYTHONPATH=path
    )
    assert (ran.code, ran.causes) == (0, ["killed", "killed", "finished"])
    assert warm(ran) == [False, False, True]
    assert "this start is cold: no interpreter was ready yet" in said(ran)
    begun = (tmp_path / "begun").read_text().split()
    assert str(ran.lines("start")[2]["pid"]) in begun[:2]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_without_the_right_to_raise_a_priority_a_spare_imports_in_turns(tmp_path) -> None:
    """Its priority stays what the program's is, for it couldn't be had back; it rests now and then."""
    path = library(tmp_path, "slow", SLOW_LIBRARY)
    script = f"{TRAINS}\nimport slow\nprint('SEEN', os.getpriority(os.PRIO_PROCESS, 0), flush=True)\ntrain_a_step()\n"
    (tmp_path / "train.py").write_text(script)
    ran = finish(
        start(
            tmp_path, sys.executable, "train.py",
            prefix=("setpriv", "--bounding-set=-sys_nice"), spare=True, PYTHONPATH=path,
        ),
        tmp_path,
    )  # fmt: skip
    assert (ran.code, ran.causes, warm(ran)) == (0, ["killed", "finished"], [False, True])
    assert ran.out.split() == ["SEEN", str(os.getpriority(os.PRIO_PROCESS, 0))] * 2
