"""Every notebook, executed for real: killed and run again, interrupted and run again, on what stands for its machine.

The quickest of them run in CI; all of them: ``python -m tests.notebook``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.notebook.kit import COLAB, NOTEBOOKS, Execution, page

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install nbformat")
pytest.importorskip("nbclient", reason="needs nbclient: pip install nbclient")
pytest.importorskip("ipykernel", reason="needs a kernel: pip install ipykernel")

PICTURES = os.environ.get("VAULTLAYER_TEST_PICTURES")
"""The folder that gets what a browser has drawn: a variable that the tests themselves don't see."""
every = pytest.mark.skipif(
    "VAULTLAYER_TEST_NOTEBOOKS" not in os.environ, reason="run by python -m tests.notebook"
)


@pytest.fixture(autouse=True)
def kernel_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What kernels get from here."""
    variables = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(COLAB), os.environ.get("PYTHONPATH", "")]),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VAULTLAYER_VAULT", raising=False)


def local(name: str, folder: Path) -> Execution:
    """A notebook whose vault is a folder beside it."""
    return Execution(name, folder, str(folder / "vaults" / Path(name).stem))


def check_kill(first: Execution, again: Execution, undisturbed: Execution) -> None:
    """Killed in the middle, its machine's disk lost, all cells run again: as if nothing had happened."""
    undisturbed.run()
    first.run_and_kill()
    shutil.rmtree(first.folder / "output", ignore_errors=True)
    again.run()
    assert again.ended == undisturbed.ended


def check_interrupt(execution: Execution, undisturbed: Execution) -> None:
    """Interrupted, and its cell run again: as if nothing had happened."""
    undisturbed.run()
    assert execution.run_and_interrupt().ended == undisturbed.ended


@pytest.mark.slow
def test_several_processes_killed(tmp_path: Path) -> None:
    """notebook_launcher's processes end with their kernel; all cells run again end as if nothing had happened."""
    name = "multi_gpu.ipynb"
    check_kill(local(name, tmp_path / "run"), local(name, tmp_path / "run"), local(name, tmp_path / "plain"))


@every
@pytest.mark.slow
def test_several_processes_interrupted(tmp_path: Path) -> None:
    """The stop button ends all of notebook_launcher's processes, and the cell run again goes on."""
    name = "multi_gpu.ipynb"
    check_interrupt(local(name, tmp_path / "run"), local(name, tmp_path / "plain"))


@every
@pytest.mark.slow
def test_accelerate_killed(tmp_path: Path) -> None:
    """A loop of one's own: kernel killed, all cells run again."""
    name = "accelerate.ipynb"
    check_kill(local(name, tmp_path / "run"), local(name, tmp_path / "run"), local(name, tmp_path / "plain"))


@pytest.mark.slow
def test_accelerate_interrupted(tmp_path: Path) -> None:
    """A loop of one's own: the stop button, and the cell with resume() run again."""
    name = "accelerate.ipynb"
    check_interrupt(local(name, tmp_path / "run"), local(name, tmp_path / "plain"))


@every
@pytest.mark.slow
def test_quickstart_interrupted(tmp_path: Path) -> None:
    """The quickstart: the stop button, and the cell with train() run again."""
    name = "quickstart.ipynb"
    check_interrupt(local(name, tmp_path / "run"), local(name, tmp_path / "plain"))


@every
@pytest.mark.slow
def test_what_cells_show(tmp_path: Path) -> None:
    """The bar and the table of a run that was killed and goes on are drawn by a browser: a picture to look at."""
    first, again = local("quickstart.ipynb", tmp_path / "run"), local("quickstart.ipynb", tmp_path / "run")
    first.run_and_kill()
    shown = again.run().shown("train")
    drawn = next(one for one in shown if "<progress" in one)
    assert "<progress value='100' max='100'" in drawn
    assert "<td>100</td>" in drawn
    assert "<td>10</td>" not in drawn, "it went on, so the table begins behind what was trained before"
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser: chromium")
    (tmp_path / "page.html").write_text(page(shown))
    picture = Path(PICTURES or tmp_path) / "notebook.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=900,1500"]
    subprocess.run(
        [browser, *options, f"--screenshot={picture}", f"file://{tmp_path}/page.html"],
        check=True, capture_output=True, timeout=90,
    )  # fmt: skip
    assert picture.stat().st_size > 5_000, "an empty page is smaller"


def on_drive(folder: Path, drive: Path) -> Execution:
    """The adapter's notebook with Drive as Colab mounts it."""
    vault = drive / "MyDrive" / "vaults" / "my-adapter"
    return Execution("trl_lora.ipynb", folder, str(vault), {"/content/drive": str(drive)})


@every
@pytest.mark.slow
def test_an_adapter_on_drive_killed(tmp_path: Path) -> None:
    """TRL with LoRA on Drive: kernel killed, all cells run again; Drive, flushed, shows the end."""
    pytest.importorskip("trl")
    run, drive = tmp_path / "run", tmp_path / "drive"
    again = on_drive(run, drive)
    check_kill(on_drive(run, drive), again, on_drive(tmp_path / "plain", tmp_path / "drive-plain"))
    assert "step   60" in again.printed("look")


@every
@pytest.mark.slow
def test_an_adapter_in_a_bucket_killed(
    tmp_path: Path, s3_uri: str, s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in a bucket, whose keys are in Colab's store of secrets and in nothing that the notebook shows."""
    pytest.importorskip("trl")
    secrets = {name: s3_env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")}
    (tmp_path / "secrets.json").write_text(json.dumps(secrets))
    monkeypatch.setenv("COLAB_SECRETS", str(tmp_path / "secrets.json"))

    def execution(folder: str, place: str) -> Execution:
        replaced = {'STORE = "drive"': f'STORE = "{s3_uri}-{place}"'}
        return Execution("trl_lora.ipynb", tmp_path / folder, f"{s3_uri}-{place}/my-adapter", replaced)

    again = execution("run", "run")
    check_kill(execution("run", "run"), again, execution("plain", "plain"))
    assert secrets["AWS_SECRET_ACCESS_KEY"] not in json.dumps(again.client.nb)


@every
@pytest.mark.slow
def test_kaggle_in_two_versions(tmp_path: Path) -> None:
    """Training ends ahead of the session's limit; the next version, with that output as input, ends as one session."""

    def execution(folder: str, **more: str) -> Execution:
        kaggle = tmp_path / folder
        replaced = {'"/kaggle/': f'"{kaggle}/', '"/tmp/output"': f'"{kaggle}/output"', **more}
        replaced["psutil.Process(1).create_time()"] = (
            "time.time()"  # this machine's session began some time ago
        )
        return Execution("kaggle.ipynb", kaggle, str(kaggle / "working" / "vault"), replaced)

    whole = execution("whole").run()
    first = execution("versions", **{"HOURS = 12.0": "HOURS = -1e6"}).run()  # a session that is over already
    assert "the training begins at step 0" in first.printed("vault")
    assert "ended at step 1," in first.printed("result")
    shutil.rmtree(tmp_path / "versions" / "output")
    inputs = tmp_path / "versions" / "input" / "notebooks" / "me" / "my-notebook"  # where Kaggle puts them
    shutil.move(tmp_path / "versions" / "working" / "vault", inputs / "vault")
    second = execution("versions").run()
    assert f"goes on from step 1 of {inputs / 'vault'}" in second.printed("vault")
    assert second.ended == whole.ended
    assert "of 20 GB" in second.printed("size")


def test_notebooks_of_one_folder_share_no_run() -> None:
    """Who runs two of them beside each other finds neither the vault nor the checkpoints of the other one."""
    named: dict[str, set[str]] = {}
    for path in NOTEBOOKS.glob("*.ipynb"):
        code = "\n".join(cell["source"] for cell in nbformat.read(path, as_version=4).cells)
        vaults = re.findall(r'VAULTLAYER_VAULT", "([^"]+)"', code) + re.findall(r'vault = f?"([^"]+)"', code)
        outputs = re.findall(r'output_dir="([^"]+)"', code)
        assert vaults, path
        named[path.stem] = {*vaults, *outputs}
    pairs = itertools.combinations(named.values(), 2)
    assert all(one.isdisjoint(other) for one, other in pairs), named


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_clean_and_short(path: Path) -> None:
    """No stored output, an install cell that does nothing where the package is, text for newcomers, short cells."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = {cell["id"]: cell for cell in notebook.cells}
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
    assert "find_spec" in cells["install"]["source"]
    assert "%pip install" in cells["install"]["source"]
    assert notebook.cells[0]["cell_type"] == "markdown"
    assert all(len(cell["source"].splitlines()) <= 36 for cell in notebook.cells)
    assert path.name in (NOTEBOOKS / "README.md").read_text()
