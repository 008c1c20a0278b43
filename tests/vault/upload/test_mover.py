"""The process that moves large files: the training process decides, whatever becomes of either of the two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests import ROOT
from tests.vault.tools import Run, content_of
from vaultlayer_hf.base.priority import LOWEST
from vaultlayer_hf.errors import ObjectNotFoundError, StoreDeniedError, StoreError, StoreUnavailableError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.reader.open import open_vault
from vaultlayer_hf.vault.upload.mover import mover
from vaultlayer_hf.vault.upload.mover import store as moving
from vaultlayer_hf.vault.upload.mover.store import LARGE, MovingStore

pytestmark = pytest.mark.usefixtures("quiet")

MIB = 2**20
PLACES = ("folder", "s3")


class Moved:
    """A store whose files are moved by a process, and what it said of it."""

    def __init__(self, uri: str | Path, *, exact: bool = False) -> None:
        self.said: list[str] = []
        self.inner = open_store(uri)
        self.store = MovingStore(self.inner, exact=exact, say=self.said.append)

    @property
    def process(self) -> psutil.Process:
        """The process that moves files; there is one."""
        (only,) = movers()
        return only


def movers() -> list[psutil.Process]:
    """Return the processes of this one that move files and haven't ended."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and "mover.worker" in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture(params=PLACES)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A vault in a folder, and one on S3."""
    return str(tmp_path / "vault" if request.param == "folder" else request.getfixturevalue("s3_uri"))


@pytest.fixture
def open_moved() -> Iterator[Callable[..., Moved]]:
    """Return a function that opens a store; all are closed at the end, and no process is left."""
    opened: list[Moved] = []

    def open_one(uri: str | Path, **options: bool) -> Moved:
        opened.append(Moved(uri, **options))
        return opened[-1]

    yield open_one
    for each in opened:
        each.store.close()
    assert not movers()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that the process moves, of three chunks."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(8 * MIB) * 2 + b"the end" * 1000)
    assert path.stat().st_size >= LARGE
    return path


def stored(store: Store, key: str) -> bytes:
    """Return the bytes of an object."""
    return store.read(key, limit=64 * MIB)


def upload(
    moved: Moved, source: Path, key: str = "data/x", pace: Callable[[int], None] | None = None
) -> None:
    """Send a file."""
    moved.store.upload(key, source, size=source.stat().st_size, pace=pace)


def test_a_large_file_is_moved_by_a_process_of_low_priority(
    uri: str, open_moved: Callable[..., Moved], large: Path
) -> None:
    """A large file arrives whole, every byte is agreed to, and the process has the lowest priority."""
    moved, counted = open_moved(uri), list[int]()
    upload(moved, large, pace=counted.append)
    assert moved.process.nice() == LOWEST
    assert stored(moved.inner, "data/x") == large.read_bytes()
    assert sum(counted) == large.stat().st_size
    assert not moved.said


def test_a_digest_is_the_same_on_either_side(
    tmp_path: Path, open_moved: Callable[..., Moved], large: Path
) -> None:
    """The process computes what the thread does, and counts the same bytes."""
    moved, counted = open_moved(tmp_path / "vault"), list[int]()
    assert moved.store.digest(large, counted.append) == moving.digest_file(large)
    assert sum(counted) == large.stat().st_size
    assert movers()


def test_small_files_start_no_process(tmp_path: Path, open_moved: Callable[..., Moved]) -> None:
    """A run whose files are all small has no second process."""
    moved, small = open_moved(tmp_path / "vault"), tmp_path / "small"
    small.write_bytes(bytes(LARGE - 1))
    moved.store.digest(small)
    upload(moved, small)
    moved.store.copy("data/x", "data/y")
    assert not movers()


def test_a_rate_is_asked_for_before_each_chunk(
    uri: str, open_moved: Callable[..., Moved], large: Path
) -> None:
    """Where a bandwidth cap holds uploads, no chunk is moved that it hasn't agreed to."""
    moved, counted = open_moved(uri, exact=True), list[int]()
    upload(moved, large, pace=counted.append)
    assert [count for count in counted if count] == [8 * MIB, 8 * MIB, 7000]


@pytest.mark.parametrize("at", [1, 3])
def test_what_a_pace_raises_comes_out_and_nothing_is_visible(
    uri: str, open_moved: Callable[..., Moved], large: Path, at: int
) -> None:
    """A file that is given up, at its first or its last chunk, is never seen; the same process moves the next."""
    moved, left = open_moved(uri, exact=True), [at]

    class NotWantedError(Exception):
        pass

    def pace(count: int) -> None:
        left[0] -= count > 0
        if left[0] <= 0:
            raise NotWantedError

    with pytest.raises(NotWantedError):
        upload(moved, large, pace=pace)
    with pytest.raises(ObjectNotFoundError):
        moved.inner.head("data/x")
    before = moved.process.pid
    upload(moved, large)
    assert stored(moved.inner, "data/x") == large.read_bytes()
    assert moved.process.pid == before
    assert not moved.said


@pytest.mark.parametrize("what", ["upload", "digest"])
def test_a_thread_takes_over_from_a_killed_process(
    uri: str, open_moved: Callable[..., Moved], large: Path, what: str
) -> None:
    """A process killed at its work costs nothing but that work: a thread does it, and a new one the next."""
    moved, killed = open_moved(uri, exact=True), list[int]()

    def pace(count: int) -> None:
        if not killed:
            killed.append(moved.process.pid)
            os.kill(killed[0], signal.SIGKILL)

    if what == "digest":
        assert moved.store.digest(large, pace) == moving.digest_file(large)
    upload(moved, large, pace=pace)
    assert stored(moved.inner, "data/x") == large.read_bytes()
    assert len(moved.said) == 1
    assert "ended with -9" in moved.said[0]
    upload(moved, large, "data/y")
    assert moved.process.pid != killed[0]


def test_a_process_that_dies_again_and_again_is_left_alone(
    tmp_path: Path, open_moved: Callable[..., Moved], large: Path
) -> None:
    """After three deaths a thread does the work for good, and that is said."""
    moved = open_moved(tmp_path / "vault")
    for number in range(mover.DEATHS):
        upload(moved, large, f"data/{number}")
        moved.process.kill()
        moved.store.digest(large)
    upload(moved, large)
    assert not movers()
    assert "from now on" in moved.said[-1]
    assert len(moved.said) == mover.DEATHS


def test_a_process_that_hangs_counts_as_dead(
    tmp_path: Path, open_moved: Callable[..., Moved], large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a sign of life for long the process is ended, and a thread does its work."""
    monkeypatch.setattr(mover, "_SILENCE", 10)
    moved = open_moved(tmp_path / "vault")
    moved.store.digest(large)
    moved.process.suspend()
    upload(moved, large)
    assert stored(moved.inner, "data/x") == large.read_bytes()
    assert "doesn't answer" in moved.said[0]


def test_giving_up_waits_for_no_process_that_hangs(
    tmp_path: Path, open_moved: Callable[..., Moved], large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is given up in time although the process doesn't notice: it is ended."""
    monkeypatch.setattr(mover, "_LAST_WORD", 0.5)
    moved = open_moved(tmp_path / "vault", exact=True)

    def pace(count: int) -> None:
        moved.process.suspend()
        raise KeyError

    with pytest.raises(KeyError):
        upload(moved, large, pace=pace)
    assert not movers()
    upload(moved, large)
    assert not moved.said


def test_what_ends_a_training_does_not_end_it(
    tmp_path: Path, open_moved: Callable[..., Moved], large: Path
) -> None:
    """SIGTERM, SIGINT and the other signals by which trainings are ended don't reach the process."""
    moved = open_moved(tmp_path / "vault")
    moved.store.digest(large)
    before = moved.process.pid
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGQUIT,
    ):
        os.kill(before, number)
    time.sleep(0.2)
    upload(moved, large)
    assert moved.process.pid == before
    assert not moved.said


def test_it_stays_in_the_session_of_the_training(
    tmp_path: Path, open_moved: Callable[..., Moved], large: Path
) -> None:
    """A session of its own would be a scheduling group of its own, in which a low priority gives way to nobody."""
    moved = open_moved(tmp_path / "vault")
    moved.store.digest(large)
    assert os.getsid(moved.process.pid) == os.getsid(0)


def test_where_no_process_can_be_started_a_thread_does_the_work(
    tmp_path: Path, open_moved: Callable[..., Moved], large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that refuses a process costs the training nothing; it is said once."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    moved = open_moved(tmp_path / "vault")
    moved.store.digest(large)
    upload(moved, large)
    assert stored(moved.inner, "data/x") == large.read_bytes()
    assert len(moved.said) == 1
    assert "can't be started" in moved.said[0]


def test_errors_of_the_store_are_what_they_are_without_it(
    uri: str, open_moved: Callable[..., Moved], large: Path, tmp_path: Path
) -> None:
    """Errors keep their type, their words and what they were about."""
    moved = open_moved(uri)
    for source, size in ((large, large.stat().st_size + 1), (tmp_path / "absent", LARGE)):
        said = []
        for store in (moved.store, moved.inner):
            with pytest.raises(StoreError) as caught:
                store.upload("data/x", source, size=size)
            said.append((type(caught.value), str(caught.value), caught.value.key))
        assert said[0] == said[1]
    with pytest.raises(FileNotFoundError):
        moved.store.digest(tmp_path / "absent")
    moved.store.digest(large)
    with pytest.raises(ObjectNotFoundError):
        moved.store.copy("data/absent", "data/y")


def test_credentials_renewed_in_the_environment_reach_it(
    s3_uri: str, open_moved: Callable[..., Moved], large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that sets new credentials in its own environment goes on with them, over there too."""
    key = os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "an-old-one")
    moved = open_moved(s3_uri)
    with pytest.raises(StoreDeniedError):
        upload(moved, large)
    before = moved.process.pid
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
    upload(moved, large)
    assert stored(open_store(s3_uri), "data/x") == large.read_bytes()
    assert moved.process.pid != before
    assert not moved.said


def test_a_thread_does_what_only_the_training_may(
    s3_uri: str, open_moved: Callable[..., Moved], large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only the training's process has credentials that hold, a thread of it sends the file."""
    moved = open_moved(s3_uri)
    moved.inner.write("data/first", b"")  # its own client knows the right key for a minute
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-one")
    upload(moved, large)
    assert movers()
    assert stored(moved.inner, "data/x") == large.read_bytes()


@pytest.mark.parametrize("opened", [True, False])
def test_a_vault_that_is_gone_is_an_error_over_there_too(
    tmp_path: Path, open_moved: Callable[..., Moved], large: Path, opened: bool
) -> None:
    """An unmounted vault isn't made anew by the process, and is found again once it is back."""
    moved = open_moved(tmp_path / "vault")
    if opened:
        upload(moved, large, "data/before")
    (tmp_path / "vault").rename(tmp_path / "away")
    with pytest.raises(StoreUnavailableError):
        upload(moved, large)
    assert not (tmp_path / "vault").exists()
    (tmp_path / "away").rename(tmp_path / "vault")
    upload(moved, large)
    assert stored(moved.inner, "data/x") == large.read_bytes()


def test_a_forked_process_does_its_own_work(
    tmp_path: Path, open_moved: Callable[..., Moved], large: Path
) -> None:
    """What was forked off never speaks with the parent's process."""
    moved = open_moved(tmp_path / "vault")
    moved.store.digest(large)
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            upload(moved, large, "data/child")
            moved.store.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    upload(moved, large, "data/parent")
    assert stored(moved.inner, "data/child") == stored(moved.inner, "data/parent")
    assert not moved.said


def test_a_session_commits_large_files_through_it(uri: str, tmp_path: Path) -> None:
    """A checkpoint with a large file is committed whole, an unchanged one is copied, and no process is left."""
    run = Run(open_store(uri), tmp_path / "out", uri=uri)
    run.resume()
    run.save(10, size=20 * MIB)
    run.wait()
    run.save(20, size=20 * MIB)
    run.wait()
    assert movers()
    run.close()
    assert not movers()
    with open_vault(uri) as vault:
        assert [commit.step for commit in vault.checkpoints()] == [10, 20]
        assert all(vault.verify(commit).ok for commit in vault.checkpoints())
        vault.pull(vault.checkpoints()[-1], tmp_path / "pulled")
    assert len(content_of(tmp_path / "pulled")["model.safetensors"]) == 20 * MIB


PROGRAM = """
import os, sys, time
from pathlib import Path
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.upload.mover.store import MovingStore

open("starts", "a").write("x")  # no guard: who imports this again starts again

def pace(count):
    os.write(1, b"moving\\n")
    time.sleep(100)

store = MovingStore(open_store(sys.argv[1]), exact=True, say=print)
store.digest(Path(sys.argv[2]))
if os.fork() == 0:  # a data loader's worker has all that the training has open, and outlives it for a while
    time.sleep(100)
    os._exit(0)
store.upload("data/x", Path(sys.argv[2]), size=os.path.getsize(sys.argv[2]), pace=pace)
"""


def test_it_ends_with_the_training(tmp_path: Path, large: Path) -> None:
    """SIGKILL of the training ends the process soon, a worker that lives on or not; nothing of it is visible."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "vault"), str(large)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == b"moving\n"
        family = psutil.Process(program.pid).children()
        (process,) = [one for one in family if "mover.worker" in " ".join(one.cmdline())]
        program.kill()
        program.wait()
        assert not psutil.wait_procs([process], timeout=20)[1]
        assert (tmp_path / "starts").read_text() == "x"
        assert not open_store(tmp_path / "vault").exists("data/x")
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        program.stdout.close()
