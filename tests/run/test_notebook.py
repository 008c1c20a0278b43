"""A notebook under `vl run`: its kernel is what trains, and what is killed."""

from __future__ import annotations

import nbformat

from tests.run.programs import finish, start


def test_a_notebook_is_run_and_started_again_when_its_kernel_is_killed(tmp_path) -> None:
    """The kernel has the hook, what the cells print is printed, and outputs are kept beside the attempt's logs."""
    cells = [
        "import os, sys\nprint('hooked', 'VAULTLAYER_RUN_ATTEMPT' in os.environ, flush=True)",
        "if not os.path.exists('once'):\n    open('once', 'w')\n    os.kill(os.getpid(), 9)",
        "print('the end')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "train.ipynb")
    before = (tmp_path / "train.ipynb").read_bytes()
    ran = finish(start(tmp_path, "train.ipynb"), tmp_path)
    assert ran.code == 0, ran.err
    assert ran.causes == ["killed", "finished"]
    assert "hooked True\n" in ran.out
    assert "the end\n" in ran.out
    assert (tmp_path / "train.ipynb").read_bytes() == before
    kept = nbformat.read(tmp_path / ".vl" / "attempt-0002" / "train.ipynb", as_version=4)
    assert kept.cells[2].outputs[0].text == "the end\n"
