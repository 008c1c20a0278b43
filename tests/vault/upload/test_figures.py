"""What uploads say of themselves: the rate that bytes are sent at, what is still unsent, what would be lost now."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.vault.tools import Run, content_of, memory_store
from vaultlayer_hf.errors import StoreUnavailableError
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.vault.upload import uploader
from vaultlayer_hf.vault.upload.figures import UploadFigures

pytestmark = pytest.mark.usefixtures("quiet")


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the figures of every uploader made from now on."""
    clock = Clock()
    monkeypatch.setattr(uploader, "UploadFigures", partial(UploadFigures, clock=clock))
    return clock


@pytest.fixture
def slow(clock: Clock, tmp_path: Path) -> Iterator[tuple[Run, list[str]]]:
    """A run on a store where a file takes 1 s to be sent, 100 s to be copied, and 500 s to be refused.

    What comes with it are names of operations that are refused once.
    """
    refused: list[str] = []
    seconds = {"upload": 1.0, "copy": 100.0, "list": 50.0, "write": 10.0}

    def plan(operation: Operation) -> Fault:
        if operation.name in refused:
            refused.remove(operation.name)
            clock.now += 500
            return Fault.refused(StoreUnavailableError(operation.name, operation.key, "away"))
        return Fault(before=lambda each: setattr(clock, "now", clock.now + seconds.get(each.name, 0.0)))

    run = Run(FaultStore(memory_store(), plan), tmp_path / "out")
    run.resume()
    yield run, refused
    run.close()


def size_of(run: Run, step: int, *left_out: str) -> int:
    """Return the bytes of a checkpoint's files but for some."""
    files = content_of(run.session.output_dir / f"checkpoint-{step}")
    return sum(len(data) for name, data in files.items() if name not in left_out)


def test_the_rate_is_that_of_sending(slow: tuple[Run, list[str]]) -> None:
    """Copies inside the store, the log's own requests and tries that failed don't lower the rate of the uploads."""
    run, refused = slow
    uploads = run.session.uploader
    assert uploads is not None
    assert uploads.rate is None
    run.save(100)
    run.wait()
    assert uploads.rate == pytest.approx(size_of(run, 100) / 3)
    refused.append("upload")
    run.save(200)
    run.wait()
    sent = size_of(run, 100) + size_of(run, 200, "config.json")
    assert uploads.figures.uploaded_bytes == sent
    assert uploads.rate == pytest.approx(sent / 5)


def test_a_file_under_way_tells_the_rate_once_it_has_lasted(clock: Clock) -> None:
    """Before the first checkpoint is in, the rate is that of the bytes so far, and not known from a first moment."""
    figures = UploadFigures(0, lambda: 0, clock)
    with figures.sending():
        clock.now += 0.5
        figures.sent(1000)
        assert figures.rate is None
        clock.now += 3.5
        figures.sent(3000)
        assert figures.rate == 1000.0
    assert figures.rate == 1000.0


def test_bytes_of_a_try_that_failed_are_unsent_again(clock: Clock) -> None:
    """A file of which half was taken before the store went away has to be sent whole: nothing of it counts as taken."""
    figures = UploadFigures(0, lambda: 0, clock)
    figures.begin_upload()
    with figures.sending():
        figures.sent(10)

    def fail() -> None:
        with figures.sending():
            figures.sent(500)
            assert figures.taken == 510
            raise StoreUnavailableError("upload", "x", "away")

    with pytest.raises(StoreUnavailableError):
        fail()
    assert figures.taken == 10
    figures.begin_upload()
    assert figures.taken == 0


@pytest.mark.parametrize(("step", "lost"), [(7, 7), (0, 0)])
def test_the_exposure_counts_from_the_last_commit(clock: Clock, step: int, lost: int) -> None:
    """Without a commit the exposure is said to count from the start."""
    figures = UploadFigures(0, lambda: step, clock)
    clock.now += 5
    assert figures.exposure == (5.0, lost)
    assert figures.exposure_text == f"exposure: 5 s and {lost} steps since the start, with no commit yet"
    resumed = UploadFigures(40, lambda: 40 + step, clock)
    clock.now += 5
    assert resumed.exposure_text == f"exposure: 5 s and {lost} steps since the resume from step 40"
