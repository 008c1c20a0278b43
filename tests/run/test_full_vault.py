"""A vault that is full at the end of a training: `vl run` ends with the code for a store in trouble, and says why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.disks import small_disk_at
from tests.run.programs import vl_run
from tests.trainer.kit import steps_of

FILL = (
    "import contextlib, itertools\n"
    "with contextlib.suppress(OSError), open(os.environ['DISK'] + '/ballast', 'wb', 0) as ballast:\n"
    "    for _ in itertools.count(): ballast.write(bytes(4096))"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    with small_disk_at(tmp_path / "disk", "8m") as folder:
        yield folder


@pytest.mark.slow
def test_an_end_that_is_not_in_the_vault_is_no_success(disk: Path, tmp_path: Path) -> None:
    """The script ends with exit code 0, and `vl run` with 3; the same command uploads the end once there is room, and
    ends with 0."""
    options = ("--vault", str(disk / "vault"))
    more = {"VAULTLAYER_FLUSH_TIMEOUT": "2", "DISK": str(disk)}
    first = vl_run(tmp_path, options=options, FATE=f"7 {FILL}", **more)
    assert first.code == 3
    assert first.causes == ["unfinished"]
    assert "WEIGHTS" in first.out
    assert "isn't in the vault, uploads are given up" in first.err
    assert "the training is over, and its last checkpoint isn't in the vault" in first.err
    assert steps_of(disk / "vault")[-1] < 12
    os.unlink(disk / "ballast")
    second = vl_run(tmp_path, options=options, **more)
    assert second.code == 0
    assert second.weights == first.weights
    assert steps_of(disk / "vault")[-1] == 12
