"""The table of `vl init`: each script, edited or left alone, and whether it ends the same when it is killed.

    python -m tests.run.insert [--before FOLDER] [--play] [NAME ...]

``--before``: another checkout, whose answers stand beside ours. ``--play``: run each script whole, and edited, killed
twice and started again on an emptied disk. A script that is edited and doesn't end the same is wrong. Those of this
checkout are forked, so that each run doesn't import torch anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest
from tqdm import tqdm

from tests import ROOT
from tests.forks import ForkServer
from tests.run.insert.conftest import PRELOADED
from tests.run.insert.kit import BY_HAND, EDITED, LEFT_ALONE, SCRIPTS, TURNS, VAULT, proposal
from tests.run.insert.run_script import STEPS, newest_commits
from tests.run.insert.story import MODEL, Story, empty_disk, kill_steps
from vaultlayer_hf.run.insert.propose import Unrecognised

_COMPARE = """
import sys, torch
from tests.run.insert.story import same
sys.exit(not same(torch.load(sys.argv[1], weights_only=False), torch.load(sys.argv[2], weights_only=False)))
"""
_RUN = f"""
import runpy, sys
run = runpy.run_path({str(ROOT / "tests/run/insert/run_script.py")!r})["run"]
run(sys.argv[1], int(sys.argv[2]) or None, sys.argv[3], bool(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]))
"""
"""By its path: another checkout has tests of its own, which are older."""


def python(package: Path, *arguments: str, every: str = "2 steps") -> subprocess.CompletedProcess[str]:
    """Run Python with the package of a checkout, and the tests of this one."""
    env = {**os.environ, "PYTHONPATH": str(package), "VAULTLAYER_SAVE_EVERY": every}
    # The current folder comes first on the path.
    elsewhere = package if package == ROOT else tempfile.gettempdir()
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=env, check=False, cwd=elsewhere
    )


def forked(name: str, forks: ForkServer) -> str:
    """What this checkout makes of a script, and how it ends: as ``outcome`` says it."""
    found = proposal(name)
    if isinstance(found, Unrecognised):
        return f"left alone: {found.reason}"
    if not found.hunks:
        return f"left alone: {found.kind}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            Story(name, forks, Path(folder)).play()
        except AssertionError as error:
            return f"edited: WRONG ({' '.join(str(error).split())[-200:]})"
        except pytest.skip.Exception as why:
            return f"edited, and doesn't run here ({why})"
    return "edited, the same end"


def outcome(name: str, package: Path, play: bool) -> str:
    """What one checkout makes of a script: left alone and why, edited, and with ``play`` how it ends."""
    with tempfile.TemporaryDirectory() as folder:
        plain, edited = Path(folder, "plain", "train.py"), Path(folder, "edited", "train.py")
        for path in (plain, edited):
            path.parent.mkdir()
            shutil.copy(SCRIPTS / f"{name}.py", path)
        init = python(
            package, "-m", "vaultlayer_hf.cli", "init", str(edited), "--vault", VAULT, "--yes", "--json"
        )
        try:
            found = json.loads(init.stdout)
        except ValueError:
            return f"wrong: vl init failed: {init.stderr.strip().splitlines()[-1:]}"
        if not found["edited"]:
            return f"left alone: {found.get('reason', found['kind'])}"
        return f"edited{_played(package, name, plain, edited)}" if play else "edited"


def _played(package: Path, name: str, plain: Path, edited: Path) -> str:
    every = "2 steps" if b"Checkpointer" in edited.read_bytes() else ""
    vault, turns = edited.parent / VAULT, TURNS.get(name, 1)

    def run(script: Path, die_at: int = 0) -> subprocess.CompletedProcess[str]:
        before = round(sum(newest_commits(vault)) * turns)
        by_hand = "by hand" if name in BY_HAND else ""
        arguments = (str(script), str(die_at), str(vault), by_hand, str(turns), str(before))
        return python(package, "-c", _RUN, *arguments, every=every)

    if run(plain).returncode:
        return ", and doesn't run here"
    total = json.loads((plain.parent / STEPS).read_text())
    for at in kill_steps(total):
        killed = run(edited, at)
        if killed.returncode != -9:
            return (
                f": WRONG, it fails ahead of step {at} ({''.join(killed.stderr.strip().splitlines()[-1:])})"
            )
        empty_disk(edited)
    again = run(edited)
    if again.returncode:
        return (
            f": WRONG, it fails when it is started again ({''.join(again.stderr.strip().splitlines()[-1:])})"
        )
    same = python(ROOT, "-c", _COMPARE, str(plain.parent / MODEL), str(edited.parent / MODEL)).returncode
    return ": WRONG, another end" if same else ", the same end"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="what vl init makes of each script")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--play", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    packages = [ROOT] if options.before is None else [options.before, ROOT]
    print("| script |", " | ".join(["before", "now"][-len(packages) :]), "|")
    print("|---|", "---|" * len(packages), sep="")
    counts = [Counter[str]() for _ in packages]
    with ForkServer(*PRELOADED) if options.play else nullcontext() as forks:
        for name in tqdm(options.names or (*EDITED, *LEFT_ALONE), disable=None):
            found = [
                forked(name, forks) if one == ROOT and forks is not None else outcome(name, one, options.play)
                for one in packages
            ]
            print(f"| {name} |", " | ".join(found), "|", flush=True)
            for count, one in zip(counts, found, strict=True):
                kind = "left alone" if one.startswith("left alone") else "edited"
                count["wrong" if "wrong" in one.lower() else kind] += 1
    sums = [
        ", ".join(f"{kind} {count[kind]}" for kind in ("edited", "left alone", "wrong")) for count in counts
    ]
    print("| in all |", " | ".join(sums), "|")


if __name__ == "__main__":
    main()
