"""What a library asks of its process when it is imported, and what it leaves in it, is the same in a warm restart."""

from __future__ import annotations

import builtins
import gc
import json
import os
import socket
import sys
import textwrap

import numpy
import pytest
import torch

from tests.run.programs import vl_run
from tests.run.test_spare import TRAINS, both, library, said, warm
from tests.run.test_spare_surroundings import is_warm
from vaultlayer_hf.run.inside.startup.vaultlayer_effects import surroundings

_PRINT = print


def test_a_library_sees_its_process_as_in_a_cold_start(tmp_path) -> None:
    """Arguments, `__main__`'s file, cores, blocked signals, time zone; times that it keeps are of its import."""
    path = library(
        tmp_path,
        "looks",
        """
        import __main__, datetime, logging, os, signal, sys, time
        seen = [sys.argv[:], getattr(__main__, "__file__", None), sorted(os.sched_getaffinity(0))]
        blocked = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        day, whole, fine = time.time(), int(time.time()), time.time_ns()
        steady, date = time.perf_counter(), datetime.datetime.now()
        zone = time.localtime(0).tm_hour
        """,
    )
    script = TRAINS + textwrap.dedent(
        """
        import json
        sys.argv.append("more")
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        os.environ["TZ"] = "JST-9"
        time.tzset()
        day, steady = time.time(), time.perf_counter()
        import logging, looks
        times = [looks.day, looks.whole + 1, looks.fine / 1e9, looks.date.timestamp(), logging._startTime]
        now = [day <= one <= time.time() + 1 for one in times], steady <= looks.steady <= time.perf_counter()
        print("SEEN", json.dumps([looks.seen, looks.blocked, now, looks.zone]), flush=True)
        train_a_step()
        """
    )
    ran, (cold, hot) = both(tmp_path, script, sys.executable, "-m", "train", "first", PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert hot == cold
    assert cold[0][0][1:] == ["first", "more"]
    assert cold[2:] == [[[True] * 5, True], 9]


def test_what_a_library_sets_comes_behind_what_the_script_has_set(tmp_path) -> None:
    """Levels of its loggers, finders, builtins, other modules, how processes start; and a fork imports for itself."""
    path = library(tmp_path, "first", "del __loader__\n")
    library(
        tmp_path,
        "sets",
        """
        import builtins, first, logging, multiprocessing, os, sys, types
        sys.modules["first"] = types.ModuleType("second")
        logging.getLogger("sets").setLevel("INFO")
        logging.getLogger("sets").addHandler(logging.NullHandler())
        logging.getLogger("sets.inner").propagate = False
        builtins.of_sets = 1
        class Finder:
            def find_spec(*_): pass
        sys.meta_path.insert(0, Finder())
        lock = multiprocessing.RLock()
        variable = os.environ.get("OF_FORK")
        """,
    )
    script = TRAINS + textwrap.dedent(
        """
        import builtins, first, json, logging.config, multiprocessing
        readable, writable = os.pipe()
        if os.fork() == 0:
            os.environ["OF_FORK"] = "yes"
            import sets
            os.write(writable, str(sets.variable).encode())
            os._exit(0)
        os.wait()
        multiprocessing.set_start_method("spawn")
        logging.getLogger("sets").setLevel("ERROR")
        logging.config.dictConfig({"version": 1})  # which disables all loggers that there are
        def look():
            loggers = [logging.getLogger(name) for name in ("sets", "sets.inner", "sets.none")]
            return [
                [(one.level, one.propagate, one.disabled, len(one.handlers)) for one in loggers[:at]],
                hasattr(builtins, "of_sets"), [type(one).__name__ for one in sys.meta_path].count("Finder"),
                multiprocessing.get_start_method(), sys.modules["first"].__name__, hasattr(first, "__loader__"),
            ]
        at = 1
        before = look()
        import sets
        at = 3
        print("SEEN", json.dumps([os.read(readable, 9).decode(), sets.variable, before, look()]), flush=True)
        train_a_step()
        """
    )
    ran, (cold, hot) = both(tmp_path, script, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert hot == cold
    assert cold[0] == "yes"


FINDER = """
from importlib.machinery import PathFinder
class Own(PathFinder):
    def find_spec(name, *rest): return PathFinder.find_spec(name, *rest) if name == 'other' else None
sys.meta_path.insert(0, Own)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deed", "found", "why"),
    [
        ("sys.modules['other'] = None", [False, False], "something else in the place of other"),
        ("sys.modules['absent'] = sys", [True, True], "absent is there now"),
        (FINDER, [True, False], "a finder of the script's own"),
    ],
    ids=["kept out", "stood for", "found otherwise"],
)
def test_what_a_script_does_to_imports_holds_for_libraries(deed, found, why, tmp_path) -> None:
    """A module that it keeps out, makes up or has found in another way is so for who imports it: by a cold start."""
    path = library(tmp_path, "other", "")
    library(
        tmp_path,
        "user",
        """
        found = []
        for name in ("other", "absent"):
            try:
                __import__(name)
                found.append(True)
            except ImportError:
                found.append(False)
        """,
    )
    script = f"{TRAINS}\n{deed}\nimport json, user\nprint('SEEN', json.dumps(user.found), flush=True)\ntrain_a_step()\n"
    ran = vl_run(tmp_path, script=script, spare=True, PYTHONPATH=path)
    assert ran.causes == ["killed", "finished"]
    assert any(why in text and "cold" in text for text in said(ran)), said(ran)
    assert ran.out.count(f"SEEN {json.dumps(found)}") == 2


@pytest.mark.slow
def test_a_library_that_is_installed_meanwhile_is_found(tmp_path) -> None:
    """An import that has looked for it in vain beforehand isn't handed over any more."""
    path = library(tmp_path, "user", "try:\n    import late\nexcept ImportError:\n    late = None\n")
    script = TRAINS.replace(
        "os.kill(", "open('site-packages/late.py', 'w').close(); os.kill("
    ) + textwrap.dedent(
        """
        import json, user
        print("SEEN", json.dumps(user.late is None), flush=True)
        train_a_step()
        """
    )
    ran, seen = both(tmp_path, script, PYTHONPATH=path)
    assert (seen, warm(ran)) == ([True, False], [False, False])
    assert any("site-packages has changed" in text for text in said(ran))


@pytest.mark.parametrize(
    ("deed", "back", "what"),
    [
        (lambda: gc.set_threshold(9), lambda: gc.set_threshold(700, 10, 10), "garbage collection"),
        (lambda: os.umask(0o70), lambda: os.umask(0o22), "the umask"),
        (lambda: sys.setswitchinterval(0.1), lambda: sys.setswitchinterval(0.005), "the switch interval"),
        (
            lambda: socket.setdefaulttimeout(9),
            lambda: socket.setdefaulttimeout(None),
            "the timeout of sockets",
        ),
        (lambda: numpy.seterr(all="ignore"), lambda: numpy.seterr(all="warn"), "numpy's settings"),
        (
            lambda: torch.set_float32_matmul_precision("high"),
            lambda: torch.set_float32_matmul_precision("highest"),
            "torch's settings for speed",
        ),
        (
            lambda: setattr(builtins, "print", repr),
            lambda: setattr(builtins, "print", _PRINT),
            "a builtin",
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_setting_that_an_import_changes_is_seen(deed, back, what) -> None:
    """It can't be taken back so that nothing shows: such an import is left to the script."""
    back()
    before = surroundings()
    try:
        assert surroundings() == before
        deed()
        after = surroundings()
    finally:
        back()
    assert [name for name in before if after[name] != before[name]] == [what]
