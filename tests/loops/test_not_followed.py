"""Data of a loop whose place can't be followed: the loop gets all batches, is told so once, and goes on near there."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from tests.kit.inside import listen
from tests.kit.odd import ForgetfulRandom
from vaultlayer_hf import Checkpointer, Settings

ROWS = 6


class Rows(Dataset[int]):
    """Numbers, beside a generator."""

    def __init__(self, good: int) -> None:
        self.generator = ForgetfulRandom(good)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> int:
        return index


def _run(folder: Path, good: int, workers: int, stop: int | None = None) -> tuple[list[int], list[str]]:
    """Two epochs, broken off behind ``stop`` steps; return the rows and what was said."""
    ckpt = Checkpointer(
        Settings(vault=str(folder / "vault"), resume_timeout=2.0), output_dir=folder / "output", save_every=1
    )
    said: list[str] = []
    listen(ckpt, lambda event: said.append(event.message))
    ckpt.resume()
    loader = DataLoader(Rows(good), batch_size=1, shuffle=False, num_workers=workers)
    seen: list[int] = []
    for _ in ckpt.epochs(range(2)):
        for batch in ckpt.batches(loader):
            seen.append(int(batch))
            ckpt.step()
            if len(seen) == stop:
                ckpt.close()
                return seen, said
    ckpt.finish()
    return seen, said


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("good", [0, 1, 2, 4, 9])
def test_a_loop_goes_on(tmp_path: Path, good: int, workers: int) -> None:
    """Wherever following ends, no row is lost or given twice, also behind a resume; and it is said once."""
    first, said = _run(tmp_path, good, workers, stop=ROWS + 2)
    assert len([text for text in said if "the place in the data isn't" in text]) == 1, said
    rest, said = _run(tmp_path, 1000, workers)
    assert first + rest == 2 * list(range(ROWS))
    assert any("no state" in text for text in said), said
