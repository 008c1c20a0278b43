"""The quickstart notebook, executed for real, and killed once."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests import ROOT

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install nbformat")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install nbclient")
pytest.importorskip("ipykernel", reason="needs a kernel: pip install ipykernel")

STREAMS = ("stdout", "stderr")
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Return a function that makes a client of the notebook, which runs in ``tmp_path``."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("VAULTLAYER_VAULT", raising=False)

    def make(folder: Path):
        folder.mkdir(exist_ok=True)
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        return nbclient.NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )

    return make


def printed(client, cell_id: str) -> str:
    """Return what a cell printed, stdout and stderr together."""
    cell = next(cell for cell in client.nb.cells if cell["id"] == cell_id)
    return "".join(output.get("text", "") for output in cell["outputs"])


def kill_at_a_commit(client, vault: Path, killed: threading.Event) -> None:
    """Kill the client's kernel as soon as the vault holds a commit; give up after a minute."""
    from vaultlayer_hf import ObjectNotFoundError, open_vault

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            held = open_vault(str(vault)).checkpoints()
        except ObjectNotFoundError:
            held = []  # not claimed yet
        if held:
            os.kill(client.km.provisioner.pid, signal.SIGKILL)
            killed.set()
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_and_run_again_ends_as_if_nothing_had_happened(client, tmp_path) -> None:
    """A kernel killed by SIGKILL in the middle of training, then "Run all": same weights, bit by bit."""
    undisturbed = client(tmp_path / "undisturbed")
    undisturbed.execute()
    train = next(cell for cell in undisturbed.nb.cells if cell["id"] == "train")
    said = {
        name: "".join(one["text"] for one in train["outputs"] if one.get("name") == name) for name in STREAMS
    }
    assert "run finished" in said["stdout"]
    assert "[vaultlayer]" not in said["stderr"], "a notebook shows it on red, as something wrong"

    folder = tmp_path / "disturbed"
    first, killed = client(folder), threading.Event()
    watcher = threading.Thread(
        target=kill_at_a_commit, args=(first, folder / "vaults" / "quickstart", killed)
    )
    watcher.start()
    with pytest.raises(nbclient.exceptions.DeadKernelError):
        first.execute()
    watcher.join()
    assert killed.is_set()
    assert "ended at step" not in printed(first, "result")
    shutil.rmtree(folder / "output")  # the machine is a new one; only the vault outlived the old one

    again = client(folder)
    again.execute()
    assert printed(again, "result") == printed(undisturbed, "result")
    tokens = re.findall(r"token (\d+)", printed(again, "look"))
    assert len(set(tokens)) == 2, "the second run went on in the vault of the first"


@pytest.mark.slow
def test_a_finished_notebook_run_again_trains_no_further(client, tmp_path) -> None:
    """ "Run all" on a finished run ends at the same step with the same weights, and commits nothing."""
    first = client(tmp_path / "run")
    first.execute()
    again = client(tmp_path / "run")
    again.execute()
    assert printed(again, "result") == printed(first, "result")
    assert printed(again, "look") == printed(first, "look")
