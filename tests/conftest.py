"""Fixtures that all tests share: a real S3 server with credentials, and the variables that lead to it."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.kit.signals import as_at_a_terminal
from tests.servers import SeaweedServer
from vaultlayer_hf.base.events import Events, logger


def pytest_configure() -> None:
    """Tests send themselves signals, and may run in the background."""
    as_at_a_terminal()


def pytest_addoption(parser: pytest.Parser) -> None:
    """How `.ci/run` takes a share of the slow tests where the machine is slow; without these options all run."""
    group = parser.getgroup("share", "a share of the tests that is as large as the time allows")
    group.addoption(
        "--minutes", type=float, help="begin no test after so many minutes; those left are skipped"
    )
    group.addoption("--order", metavar="TEXT", help="take the files in an order that this text alone decides")


_began = time.monotonic()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With another ``--order`` at each commit no test is left out for long. A file's tests share servers: together."""
    order = config.getoption("--order")
    if order:
        items.sort(key=lambda item: hashlib.sha256(f"{order} {item.path.name}".encode()).digest())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What would begin too late is skipped, and the summary says how many."""
    minutes = item.config.getoption("--minutes")
    if minutes is not None and time.monotonic() - _began > minutes * 60:
        pytest.skip(f"not begun within --minutes {minutes:g}")


def pytest_collection_finish() -> None:
    """A Trainer collects garbage before it trains: 0.3 s to look at what imports have made, thousands of times."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nothing that a test started may outlive the session (the servers die with this process, too)."""
    server = getattr(session.config, "_vaultlayer_server", None)
    if server is not None:
        server.close()


@pytest.fixture(autouse=True)
def _no_vault_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No VAULTLAYER_* variable of whoever runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith("VAULTLAYER_") and name != "VAULTLAYER_TEST_SEED":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _accelerate_variables_as_before() -> Iterator[None]:
    """An older TrainingArguments(bf16=True) writes ACCELERATE_MIXED_PRECISION, which would hold for the next test."""
    before = {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}
    yield
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A training that a test left behind catches no signal of the next test."""
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in caught}
    yield
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture
def chance() -> random.Random:
    """Random numbers from a seed that is printed; ``VAULTLAYER_TEST_SEED`` repeats a run."""
    seed = int(os.environ.get("VAULTLAYER_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"VAULTLAYER_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def _s3_server_of_session(request: pytest.FixtureRequest) -> Iterator[SeaweedServer]:
    server = SeaweedServer()
    request.config._vaultlayer_server = server  # type: ignore[attr-defined]
    server.start()
    yield server
    server.close()


@pytest.fixture
def s3_server(_s3_server_of_session: SeaweedServer) -> SeaweedServer:
    """A running SeaweedFS with credentials. A test may stop() it; the next one finds it running again."""
    _s3_server_of_session.start()
    return _s3_server_of_session


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own AWS configuration is seen."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent-aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3_env(s3_server: SeaweedServer, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """AWS_* variables lead to the server, for this process and those it starts; returned too."""
    variables = s3_server.env()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def s3_uri(s3_server: SeaweedServer, s3_env: dict[str, str]) -> str:
    """A vault URI on the server that nobody has used."""
    return f"s3://{s3_server.bucket}/test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def quiet() -> Iterator[None]:
    """Events are told to listeners only, not logged."""
    Events()  # sets the logger up, once a process: with what it finds, so before it is silenced here
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each copy of a state that is made beside a training, in bytes."""
    from tests.kit.copies import note_copies  # it imports torch, which most tests need not

    return note_copies(monkeypatch)


@pytest.fixture
def copies_of_small_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have states of a few MiB copied; training would wait for their files otherwise."""
    from vaultlayer_hf.state.capture import copier  # the same

    monkeypatch.setattr(copier, "SMALL", 2**20)


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """A process that has imported everything once and forks a run in tens of milliseconds."""
    with ForkServer() as server:
        yield server
