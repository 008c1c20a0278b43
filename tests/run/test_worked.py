"""How far a process has come is told by what it has done, not by its age."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vaultlayer_hf.run.engines.worked import Worked


def tell(folder: Path, *, waited: float | None, ran: float) -> None:
    """Have a folder tell of process 7 as the kernel does."""
    (folder / "7").mkdir(exist_ok=True)
    ticks = int(ran * os.sysconf("SC_CLK_TCK"))
    (folder / "7" / "stat").write_text(f"7 (a (b) c) S {' '.join('0' * 10)} {ticks} 0 0\n")
    if waited is not None:
        (folder / "7" / "schedstat").write_text(f"{int(ran * 1e9)} {int(waited * 1e9)} 12\n")


def test_what_others_had_of_the_processor_does_not_count(tmp_path: Path) -> None:
    """Of ten seconds, six of which it waited for a processor, four count, those in which it slept among them."""
    tell(tmp_path, waited=3.0, ran=1.0)
    clock = iter([100.0, 110.0])
    process = Worked(7, tmp_path, lambda: next(clock))
    tell(tmp_path, waited=9.0, ran=2.0)
    assert process.seconds() == pytest.approx(4.0)


def test_where_the_kernel_counts_no_waiting_only_what_has_run_counts(tmp_path: Path) -> None:
    """That is less than was done, never more: whoever asks then rather begins anew."""
    tell(tmp_path, waited=None, ran=1.0)
    clock = iter([100.0, 110.0])
    process = Worked(7, tmp_path, lambda: next(clock))
    tell(tmp_path, waited=None, ran=3.0)
    assert process.seconds() == pytest.approx(2.0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells it on Linux")
def test_a_real_process_is_told_of() -> None:
    """This process has run while it counted to a million."""
    process = Worked(os.getpid())
    sum(range(10**6))
    assert process.seconds() > 0
