"""A file that a loop writes on its way, and reads at its end: it goes with the checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vaultlayer_hf import Checkpointer
from vaultlayer_hf.loops.kept_file import KeptFile


def _loop(vault: Path, folder: Path, stop: int) -> str:
    """Train to a step, writing a file at steps 1 and 2; return what is in it as the loop begins."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    best = folder / "weights" / "best.pt"
    ckpt = Checkpointer(str(vault), model=model, save_every="1 steps", output_dir=folder / "out")
    ckpt.add("best", Checkpointer.file(best))
    start = ckpt.resume()
    found = best.read_text() if best.exists() else ""
    for step in range(start, stop):
        if step in (1, 2):
            best.parent.mkdir(exist_ok=True)
            best.write_text(f"weights of step {step}")
        ckpt.step()
    ckpt.close()
    return found


def test_a_file_comes_back_as_it_was_at_the_checkpoint(tmp_path: Path) -> None:
    """On an empty disk it is written again, on the same disk what a later step has made of it is put back."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    assert _loop(tmp_path / "vault", first, 3) == ""
    assert _loop(tmp_path / "vault", second, 3) == "weights of step 2"
    (first / "weights" / "best.pt").write_text("of a step that no checkpoint has")
    assert _loop(tmp_path / "vault", first, 4) == "weights of step 2"


@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 10])
def test_any_bytes_and_none(tmp_path: Path, content: bytes) -> None:
    """An empty file comes back empty, any bytes as they are, and where there was no file the one of now stays."""
    path = tmp_path / "file"
    nothing = KeptFile(path).state_dict()
    path.write_bytes(content)
    path.chmod(0o600)
    state = KeptFile(path).state_dict()
    path.write_bytes(b"another")
    KeptFile(path).load_state_dict(nothing)
    assert path.read_bytes() == b"another"
    KeptFile(path).load_state_dict(state)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (content, 0o600)
