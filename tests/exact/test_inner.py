"""Looking into a data set that changes while it is looked into."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.trainer.programs import tokenizer
from vaultlayer_hf.state.data.inner import Inner


class _Restless:
    """A value that gives its owner one more attribute whenever its class is asked for, as a thread may at any time."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    @property
    def __class__(self) -> Any:
        setattr(self.owner, f"more_{len(vars(self.owner))}", 0)
        return _Restless


class _Data:
    count = 0


def test_attributes_that_come_meanwhile() -> None:
    """A data set that gets attributes while it is looked into doesn't raise, and its counters are found."""
    data = _Data()
    data.count = 1
    data.restless = _Restless(data)  # type: ignore[attr-defined]
    inner = Inner(dataset=data)
    data.count = 2
    assert inner.take()["dataset.count"] == ("number", 2, 1)


class _Lazy:
    """Opens its file, and draws its seed, at the first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: Any = None
        self.seed_fd: Any = None

    def use(self) -> bytes:
        if self._fd is None:
            self._fd = os.open(self.path, os.O_RDONLY)
            self.seed_fd = 1_000_000
        return os.pread(self._fd, 4, 0)


def test_an_open_file_is_of_its_process(tmp_path: Path) -> None:
    """The number of a file that was opened lazily isn't put back, where it is another file's; other numbers are."""
    (tmp_path / "rows").write_bytes(b"rows")
    first, second = _Lazy(tmp_path / "rows"), _Lazy(tmp_path / "rows")
    inner = Inner(dataset=first)
    assert first.use() == b"rows"
    state = inner.take()
    os.close(first._fd)
    Inner(dataset=second).put(state)
    assert (second._fd, second.seed_fd) == (None, 1_000_000)
    assert second.use() == b"rows"
    os.close(second._fd)


class _Wrapping:
    """Wraps a collator as the Trainer does that leaves out columns."""

    def __init__(self, data_collator: Any) -> None:
        self.data_collator = data_collator


def _masked(collator: Any) -> Any:
    return collator([{"input_ids": list(range(10, 40))}])["labels"].tolist()


def _tokenizer() -> Any:
    made = tokenizer()
    made.mask_token = "w61"
    return made


def _collator() -> Any:
    return _Wrapping(
        transformers.DataCollatorForLanguageModeling(_tokenizer(), mlm=True, mlm_probability=0.5, seed=1)
    )


def test_a_generator_that_is_of_one_process_goes_on_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' collator with a seed makes its generator late, and anew in another process."""
    first = _collator()
    inner = Inner(collate=first)
    _masked(first.data_collator)
    state = inner.take()
    expected = [_masked(first.data_collator) for _ in range(2)]
    here = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: here + 1)
    second = _collator()
    Inner(collate=second).put(state)
    assert [_masked(second.data_collator) for _ in range(2)] == expected


PID, DRAWN = 0, 0


class Rows:
    """A data set whose functions count in globals, and note there which process they run in."""

    def draw(self) -> None:
        """Count, and note the process."""
        global PID, DRAWN
        PID, DRAWN = os.getpid(), DRAWN + 1


def test_a_global_that_notes_the_process_is_this_processs_behind_a_resume(monkeypatch) -> None:
    """It isn't the process's that saved, and not nothing: a data set that compares them would begin anew."""
    monkeypatch.setitem(globals(), "PID", 0)
    monkeypatch.setitem(globals(), "DRAWN", 0)
    rows = Rows()
    inner = Inner(rows=rows)
    rows.draw()
    kept = inner.take()
    assert str(os.getpid()) not in repr(kept)
    globals().update(PID=0, DRAWN=0)
    Inner(rows=Rows()).put(kept)
    assert [os.getpid(), 1] == [PID, DRAWN]
