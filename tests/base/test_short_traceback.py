"""A start that is refused on purpose ends a program with its message."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from vaultlayer_hf import Settings
from vaultlayer_hf.base.short_traceback import short_text
from vaultlayer_hf.errors import SettingsError, VaultUriError
from vaultlayer_hf.stores.uri import parse_vault

REFUSED = """
import sys
from vaultlayer_hf import Settings
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.resume import resume
from tests.kit.any_files import AnyFiles
from pathlib import Path

def main():
    session = Session(Settings(vault=sys.argv[1], resume_timeout=1.0), Path("out"))
    resume(session, AnyFiles())

main()
"""


def start(folder: Path, vault: str, **environment: str) -> list[str]:
    """Return the last lines of a script's stderr whose start on a vault is refused."""
    script = folder / "train.py"
    script.write_text(REFUSED)
    done = subprocess.run(
        [sys.executable, str(script), vault],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment},
    )
    assert done.returncode == 1
    return done.stderr.splitlines()


def test_a_refused_start_ends_with_its_message(tmp_path: Path) -> None:
    """The person's own frames, then what is wrong and what to do as the last line: nothing of ours, no causes."""
    (tmp_path / "file").write_text("no folder")
    lines = start(tmp_path, "file")
    assert lines[-1].startswith("vaultlayer_hf.errors.VaultDeniedError: ")
    assert sum(line.startswith("Traceback") for line in lines) == 1
    assert [line for line in lines if line.startswith("  File ")] == [
        f'  File "{tmp_path}/train.py", line 13, in <module>',
        f'  File "{tmp_path}/train.py", line 11, in main',
    ]


def test_all_frames_for_who_looks_for_a_bug(tmp_path: Path) -> None:
    """VAULTLAYER_VERBOSITY=debug shows the whole way, causes included."""
    (tmp_path / "file").write_text("no folder")
    lines = start(tmp_path, "file", VAULTLAYER_VERBOSITY="debug")
    assert sum(line.startswith("Traceback") for line in lines) > 1


def test_a_notebook_and_vl_run_show_the_same() -> None:
    """The text for both has the message last; another program's error keeps all of its frames and causes."""
    with pytest.raises(VaultUriError) as caught:
        parse_vault("S3://x")
    lines = short_text(caught.value).splitlines()
    assert lines[-1].endswith("did you mean s3://x?")
    assert not any("stores/uri.py" in line for line in lines)
    theirs = ValueError("theirs")
    theirs.__cause__ = caught.value
    assert "stores/uri.py" in short_text(theirs)


def test_what_python_has_made_for_us_is_no_frame_of_the_persons() -> None:
    """Settings is a dataclass, whose __init__ has no file: it isn't shown either."""
    with pytest.raises(SettingsError) as caught:
        Settings(vault="run", grace="soon")
    assert "<string>" not in short_text(caught.value)
    assert __file__ in short_text(caught.value)


HOOKED = """
import sys, traceback
from vaultlayer_hf import Settings
from vaultlayer_hf.errors import FencedError
from vaultlayer_hf.session.stop.exits import INTERRUPTED, leave

class ExitHooks:
    def hook(self):
        self.before = sys.excepthook if sys.excepthook != sys.__excepthook__ else None
        sys.excepthook = self.handle

    def handle(self, cls, error, trace):
        traceback.print_exception(cls, error, trace)
        if self.before:
            self.before(cls, error, trace)

ExitHooks.__module__ = "wandb.sdk.lib.exit_hooks"
if sys.argv[1] == "real":
    from wandb.sdk.lib.exit_hooks import ExitHooks
Settings(vault="run")
ExitHooks().hook()
if "theirs" in sys.argv:
    raise ValueError("theirs")
if "fenced" in sys.argv:
    raise FencedError("another process has it")
leave("told to", INTERRUPTED)
"""


@pytest.mark.parametrize("whose", ["alike", "real"])
@pytest.mark.parametrize(("what", "tracebacks"), [("theirs", 1), ("Ctrl-C", 1), ("fenced", 2)])
def test_wandb_prints_an_error_once(whose: str, what: str, tracebacks: int, tmp_path: Path) -> None:
    """W&B's hook prints an error and calls ours: another's isn't printed twice, and of ours the short one is last."""
    if whose == "real" and importlib.util.find_spec("wandb") is None:
        pytest.skip("needs wandb: pip install -e '.[testtrackers]'")
    script = tmp_path / "train.py"
    script.write_text(HOOKED)
    done = subprocess.run(
        [sys.executable, str(script), whose, what],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    lines = done.stderr.splitlines()
    assert sum(line.startswith("Traceback") for line in lines) == tracebacks, done.stderr
    last = {
        "theirs": "ValueError: theirs",
        "Ctrl-C": "KeyboardInterrupt: training was stopped by Ctrl-C; started again, it goes on from what was saved",
        "fenced": "vaultlayer_hf.errors.FencedError: another process has it",
    }
    assert lines[-1] == last[what]
    if what == "Ctrl-C":
        assert not any("session/stop/exits.py" in line for line in lines)
