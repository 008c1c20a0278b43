"""What Python's start, the environment and the script's own settings have to do with a warm restart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from tests.run.deaths import await_file, leftovers
from tests.run.programs import Ran, environment, start, vl_run
from tests.run.test_spare import TRAINS, both, library, said, warm
from vaultlayer_hf.run.journal import read_journal

BY = "import os\nby, beforehand = os.getpid(), 'VAULTLAYER_RUN_ATTEMPT' not in os.environ\n"
"""A library that tells which process has imported it, and whether that was a spare."""


def is_warm(ran: Ran) -> bool:
    """Whether the second attempt was warm, to its end."""
    return warm(ran) == [False, True] and not ran.notes(2, "unfit")


def test_a_variable_that_an_import_draws_anew_is_no_reason_for_a_cold_start(tmp_path) -> None:
    """A library that puts an id of its process into the environment, as MLflow does: each attempt has its own."""
    path = library(
        tmp_path,
        "drawer",
        "import os, uuid\nid = os.environ['OF_DRAWER'] = uuid.uuid4().hex\n",
    )
    library(tmp_path, "reader", "import os\nid = os.environ['OF_DRAWER']\n")
    script = TRAINS + textwrap.dedent(
        """
        import json, drawer, reader
        same = drawer.id == reader.id == os.environ["OF_DRAWER"]
        print("SEEN", json.dumps([same, drawer.id]), flush=True)
        train_a_step()
        """
    )
    ran, (cold, hot) = both(tmp_path, script, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert (cold[0], hot[0], cold[1] == hot[1]) == (True, True, False)


@pytest.mark.slow
def test_a_variable_that_is_set_for_one_call_is_no_reason_for_a_cold_start(tmp_path) -> None:
    """accelerate sets this one while it asks for GPUs, and torch reads it: an import may fall into that or not."""
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    path = library(tmp_path, "reader", f"import os\nseen = os.environ.get({name!r})\n")
    script = TRAINS + textwrap.dedent(
        f"""
        if attempt() == 1:
            os.environ[{name!r}] = "1"
        import reader
        os.environ.pop({name!r}, None)
        train_a_step()
        """
    )
    ran = vl_run(tmp_path, script=script, spare=True, PYTHONPATH=path)
    assert ran.causes == ["killed", "finished"]
    assert is_warm(ran), said(ran)


@pytest.mark.slow
def test_a_variable_that_no_import_reads_may_change_from_attempt_to_attempt(tmp_path) -> None:
    """A port, a run's name or a folder that the script draws before its imports; read later, it is the new one."""
    path = library(tmp_path, "light", BY)
    script = TRAINS + textwrap.dedent(
        """
        import json
        os.environ["NAME_OF_THIS_RUN"] = str(attempt())
        import light
        print("SEEN", json.dumps([os.environ["NAME_OF_THIS_RUN"], light.beforehand]), flush=True)
        train_a_step()
        """
    )
    ran, seen = both(tmp_path, script, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert seen == [["1", False], ["2", True]]


@pytest.mark.slow
def test_a_variable_that_a_library_in_c_may_read_means_a_cold_start(tmp_path) -> None:
    """Its name stands in a library that is loaded: here in Python's own."""
    path = library(tmp_path, "light", BY)
    script = TRAINS + "os.environ['PYTHONUTF8'] = str(attempt() % 2)\nimport light\ntrain_a_step()\n"
    ran = vl_run(tmp_path, script=script, spare=True, PYTHONPATH=path)
    assert ran.causes == ["killed", "finished"]
    assert warm(ran) == [False, True, False]
    assert any("PYTHONUTF8" in text for text in said(ran))


OWN_START = """
import os, light
with open("starts", "a") as file:
    file.write(f"{os.getpid()}-{os.environ.get('VAULTLAYER_RUN_ATTEMPT', '')[-1:]} ")
os.environ["OF_START"] = str(os.getpid())
print("start", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["mine", "site-packages"])
def test_a_sitecustomize_of_ones_own_runs_when_its_attempt_starts(place, tmp_path) -> None:
    """Never beforehand where it is the user's own; what it sets is there, as in a cold start, wherever it lies."""
    path = library(tmp_path, "light", BY)
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "sitecustomize.py").write_text(OWN_START)
    script = TRAINS + textwrap.dedent(
        """
        import json, light
        print("SEEN", json.dumps([os.environ["OF_START"] == str(os.getpid()), light.beforehand]), flush=True)
        train_a_step()
        """
    )
    path = os.pathsep.join([str(tmp_path / place), path])
    ran, seen = both(tmp_path, script, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert seen == [[True, False], [True, place == "mine"]]
    begun = (tmp_path / "starts").read_text().split()
    pids = [line["pid"] for line in ran.lines("start")]
    # An installed one runs beforehand.
    of_attempts = [f"{pids[0]}-1", f"{pids[1]}-{2 if place == 'mine' else 1}"]
    assert [one for one in begun if not one.endswith("-")] == of_attempts
    for attempt in (1, 2):
        text = (tmp_path / ".vl" / f"attempt-000{attempt}" / "output.log").read_text()
        assert text.index("start\n") < text.index("SEEN")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["mine", "site-packages"])
def test_a_sitecustomize_that_fails_never_lets_a_spare_train(place, tmp_path) -> None:
    """It raises in every process but the first attempt's, as where a port is in use: one process trains at a time."""
    path = library(tmp_path, "light", BY)
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "sitecustomize.py").write_text(
        "import os\nif os.path.exists('begun'): raise OSError('the port is in use')\n"
    )
    script = (
        "import os\nopen('begun', 'a').write(f'{os.getpid()} ')\n" + TRAINS + "import light\ntrain_a_step()\n"
    )
    ran = vl_run(
        tmp_path, script=script, spare=True, PYTHONPATH=os.pathsep.join([str(tmp_path / place), path])
    )
    assert (ran.code, ran.causes) == (0, ["killed", "finished"])
    assert is_warm(ran), said(ran)
    assert (tmp_path / "begun").read_text().split() == [str(line["pid"]) for line in ran.lines("start")]
    assert "the port is in use" in (tmp_path / ".vl" / "attempt-0002" / "output.log").read_text()


@pytest.mark.slow
def test_a_sitecustomize_that_changes_how_modules_are_found_means_cold_starts(tmp_path) -> None:
    """What imports bring hangs on it, so it must come first; it is said."""
    path = library(tmp_path, "light", BY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sitecustomize.py").write_text(
        "import sys\nclass Looks:\n    @staticmethod\n    def find_spec(*_): pass\nsys.meta_path.insert(0, Looks)\n"
    )
    script = TRAINS + "import light\ntrain_a_step('how modules are found')\n"
    ran = vl_run(
        tmp_path, script=script, spare=True, PYTHONPATH=os.pathsep.join([str(tmp_path / "mine"), path])
    )
    assert (ran.causes, warm(ran)) == (["killed", "finished"], [False, False])


@pytest.mark.slow
def test_a_module_that_makes_tensors_makes_those_that_the_script_has_asked_for(tmp_path) -> None:
    """A default type or device that is set before a library is imported counts for what the library makes then."""
    path = library(tmp_path, "makes", "import torch\none = torch.ones(1)\ntwo = torch.ones(1)\n")
    script = TRAINS + textwrap.dedent(
        """
        import json, torch
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            import makes
        print("SEEN", json.dumps([str(makes.one.dtype), str(makes.one.device)]), flush=True)
        train_a_step()
        """
    )
    ran, seen = both(tmp_path, script, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert seen == [["torch.float64", "meta"]] * 2


@pytest.mark.slow
def test_what_a_library_logs_at_its_import_is_logged_as_the_script_wants_it(tmp_path) -> None:
    """By the handlers and levels that the script has set before, once, and where the script imports it."""
    path = library(
        tmp_path,
        "chatty",
        """
        import logging
        log = logging.getLogger("chatty")
        log.info("is here")
        log.debug("is here in detail")
        log.warning("be careful")
        seen = log.isEnabledFor(logging.DEBUG)
        """,
    )
    script = TRAINS + textwrap.dedent(
        """
        import json, logging
        logging.basicConfig(level="INFO", format="SAID %(levelname)s %(name)s %(message)s", stream=sys.stdout)
        print("SEEN", json.dumps("before"), flush=True)
        import chatty
        print("SEEN", json.dumps(chatty.seen), flush=True)
        train_a_step()
        """
    )
    ran, _ = both(tmp_path, script, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    seen = [line for line in ran.out.splitlines() if line.startswith(("SEEN", "SAID"))]
    once = ['SEEN "before"', "SAID INFO chatty is here", "SAID WARNING chatty be careful", "SEEN false"]
    assert seen == once * 2


@pytest.mark.slow
def test_a_script_that_goes_to_its_own_folder_restarts_warm(tmp_path) -> None:
    """Or to one above it, which is there in each attempt; what is imported behind that is imported there."""
    path = library(tmp_path, "light", BY + "folder = os.getcwd()\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    script = TRAINS + textwrap.dedent(
        """
        import json
        os.chdir("..")
        import light
        os.chdir("inner")
        print("SEEN", json.dumps([light.folder, light.beforehand]), flush=True)
        train_a_step()
        """
    )
    ran, seen = both(inner, script, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert seen == [[str(tmp_path), False], [str(tmp_path), True]]


@pytest.mark.slow
def test_a_namespace_package_may_lie_in_ones_own_folder_too(tmp_path) -> None:
    """What is installed of it is imported beforehand, and what is the user's own with its attempt."""
    path = library(tmp_path, "light", "import space.theirs\n" + BY)
    for place, name in ((tmp_path / "site-packages", "theirs"), (tmp_path, "mine")):
        (place / "space").mkdir()
        (place / "space" / f"{name}.py").write_text(BY)
    script = TRAINS + textwrap.dedent(
        """
        import json, space.mine, light
        seen = [space.theirs.beforehand, space.mine.beforehand, light.beforehand]
        print("SEEN", json.dumps(seen), flush=True)
        train_a_step()
        """
    )
    ran, seen = both(tmp_path, script, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert seen == [[False, False, False], [True, False, True]]


@pytest.mark.slow
def test_a_module_that_an_importer_makes_up_is_imported_beforehand(tmp_path) -> None:
    """One without a file, as six.moves, is part of the library that makes it up."""
    path = library(
        tmp_path,
        "maker",
        """
        import importlib.machinery, sys, types
        class Maker:
            def find_spec(self, name, path=None, target=None):
                return importlib.machinery.ModuleSpec(name, self) if name == "maker.moves" else None
            def create_module(self, spec):
                return types.ModuleType(spec.name)
            def exec_module(self, module):
                pass
        sys.meta_path.append(Maker())
        __path__ = []
        import maker.moves
        """,
    )
    library(tmp_path, "light", BY)
    script = TRAINS + textwrap.dedent(
        """
        import json, maker, light
        print("SEEN", json.dumps(light.beforehand), flush=True)
        train_a_step()
        """
    )
    ran, seen = both(tmp_path, script, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert seen == [False, True]


@pytest.mark.slow
def test_why_a_part_of_the_imports_starts_cold_is_said(tmp_path) -> None:
    """What comes behind a folder of the run's own isn't imported beforehand, and the reason stands beside the rest."""
    path = library(tmp_path, "light", BY)
    script = TRAINS + textwrap.dedent(
        """
        import json, tempfile
        home = os.getcwd()
        os.chdir(tempfile.mkdtemp())
        import light
        os.chdir(home)
        train_a_step()
        """
    )
    ran = vl_run(tmp_path, script=script, spare=True, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert any("starts cold: the script has changed its folder" in text for text in said(ran))


@pytest.mark.slow
def test_an_import_that_is_left_to_the_script_is_named(tmp_path) -> None:
    """What comes before it is warm, it and what comes behind start cold, and it is said beside the rest."""
    path = library(tmp_path, "strange", "import random\nrandom.random()\n")
    script = TRAINS + "import random, strange\ntrain_a_step()\n"
    ran = vl_run(tmp_path, script=script, spare=True, PYTHONPATH=path)
    assert is_warm(ran), said(ran)
    assert any("starts cold: strange changes random numbers" in text for text in said(ran)), said(ran)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "wait", "why"),
    [
        (["env"], "attempt-0001", "the command starts cold"),
        ([], "attempt-0001", "this start is cold: no interpreter was ready yet"),
    ],
    ids=["not-python", "too-soon"],
)
def test_why_a_restart_is_cold_is_said(prefix, wait, why, tmp_path) -> None:
    """Where something stands before Python, or a training died before a spare was begun."""
    script = TRAINS.replace("report.beat(", "attempt() > 1 and report.beat(") + f"train_a_step({wait!r})\n"
    ran = vl_run(tmp_path, *prefix, sys.executable, "train.py", script=script, spare=True)
    assert (ran.causes, warm(ran)) == (["killed", "finished"], [False, False])
    assert any(why in text for text in said(ran)), said(ran)


def test_for_a_program_that_replaces_itself_no_spare_is_kept(tmp_path) -> None:
    """A script that sets a variable and starts itself anew in its own process is never warm, and that is said."""
    again = "os.environ['AGAIN'] = '1'; os.execv(sys.executable, sys.orig_argv)"
    script = (
        f"import os, sys\nif 'AGAIN' not in os.environ: {again}\n{TRAINS}\ntrain_a_step('replaces itself')\n"
    )
    ran = vl_run(tmp_path, script=script, spare=True)
    assert (ran.code, ran.causes, warm(ran)) == (0, ["killed", "finished"], [False, False])
    assert len(said(ran)) == 1


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_a_spare_does_not_outlive_a_killed_vl_run(tmp_path) -> None:
    """Nor does one that rests between its imports, as where a priority couldn't be had back."""
    prefix = ("setpriv", "--bounding-set=-sys_nice")
    path = library(tmp_path, "slow", "import time\nfor _ in range(80): time.sleep(0.1)\n")
    (tmp_path / "train.py").write_text(
        TRAINS.replace("if attempt() == 1:", "open('up', 'w')\n    if attempt() == 1:")
        + "import slow\ntrain_a_step('never said')\n"
    )
    process = start(tmp_path, sys.executable, "train.py", prefix=prefix, spare=True, PYTHONPATH=path)
    await_file(tmp_path / "up", process)
    time.sleep(2.5)  # a spare is started within a second, and imports now
    assert len(psutil.Process(process.pid).children()) == 2
    process.kill()
    process.communicate()
    end = time.monotonic() + 10
    while leftovers(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    left = leftovers(tmp_path)
    for one in left:
        one.kill()
    assert left == []


def test_a_run_goes_on_when_nobody_listens_to_it_any_more(tmp_path: Path) -> None:
    """Whoever read its messages is gone, as after `vl run … 2>&1 | head`: it starts the training again all the same."""
    (tmp_path / "train.py").write_text(
        "import os, signal, time\nwhile not os.path.exists('gone'): time.sleep(0.02)\n"
        "if not os.path.exists('once'):\n    open('once', 'w')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "open('end', 'w')\n"
    )
    vl = f"{sys.executable} -m vaultlayer_hf.cli run --no-spare --backoff 0 -- {sys.executable} train.py"
    done = subprocess.run(
        ["bash", "-c", f"{vl} 2>&1 | (head -n 1; exec <&-; touch gone)"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0
    end = [line for line in read_journal(tmp_path / ".vl") if line["kind"] == "end"]
    assert [line["code"] for line in end] == [0], json.dumps(read_journal(tmp_path / ".vl"), indent=1)
    assert (tmp_path / "end").exists()
