"""Faults around real trainings: nothing that was acknowledged is lost, nothing torn is gone on from, none stops.

A slice of the scoreboard; all of it is ``python -m tests.faults``.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.board import Board, Row
from tests.faults.kinds import NEEDS_ROOT, every_fault
from tests.faults.proxy import Act, FaultProxy
from tests.forks import ForkServer
from tests.servers import CannedServer, SeaweedServer
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.log.log import Log

SLICE = [
    ("wrapper/mixture", "ends"),
    ("proxy/mixture", "killed"),
    ("proxy/lost answers", "ends"),
    ("proxy/429 with Retry-After", "ends"),
    ("proxy/bit flips", "start"),
    ("proxy/truncation", "start"),
    ("name/not found", "ends"),
    ("server/killed", "ends"),
    ("machine/too many open files", "ends"),
    ("disk/read-only output folder", "ends"),
    ("disk/full vault", "ends"),
    ("clock/a day behind", "ends"),
]


@pytest.fixture
def board(forks: ForkServer, s3_server: SeaweedServer, s3_env: dict[str, str], tmp_path: Path) -> Board:
    """A scoreboard with an S3 server that may be killed."""
    return Board(forks, s3_server, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "way"), SLICE)
def test_a_fault_loses_tears_and_stops_nothing(board: Board, fault: str, way: str) -> None:
    """Every commit that the training was told of is whole in the vault, the next start goes on from the newest with the
    bytes that were saved, and the training comes to its last step.
    """
    assert fault in every_fault()
    if os.geteuid() != 0 and fault.startswith(NEEDS_ROOT):
        pytest.skip("it mounts, which needs root")
    row = Row(fault)
    board.attempt(row, way)
    assert row.good, row.said
    assert row.acknowledged


@pytest.mark.slow
def test_the_board_sees_a_commit_that_is_lost(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The board isn't blind: a vault that loses its newest checkpoint's weights behind the run counts as a loss."""
    judge = board.judge_vault

    def vandalised(row: Row, vault: str, lines: list[dict[str, object]]) -> int:
        store = open_store(vault)
        entry = Log(store).last()[1]
        assert entry is not None
        store.delete([f"{entry.state.commits[-1].folder}/model.safetensors"])
        return judge(row, vault, lines)

    monkeypatch.setattr(board, "judge_vault", vandalised)
    row = Row("wrapper/latency")
    board.attempt(row, "ends")
    assert row.lost == 1
    assert not row.good


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """A proxy in front of a server that answers with 100 bytes."""
    server = CannedServer(lambda *_: (200, {"ETag": "x"}, b"\0" * 100))
    with FaultProxy(server.endpoint) as proxy:
        yield proxy
    server.close()


def ask(proxy: FaultProxy, method: str = "GET") -> tuple[int, bytes]:
    """Ask the server behind a proxy; raises what a client sees of a fault."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(proxy.endpoint).port, timeout=5)
    try:
        connection.request(method, "/x", body=b"y" * 10 if method == "PUT" else None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_proxy_does_what_it_says(proxy: FaultProxy) -> None:
    """Each act shows as what a network or a server does, and without one a request is passed on as it is."""
    assert ask(proxy) == (200, b"\0" * 100)
    proxy.begin(lambda *_: Act("answer", status=429, code="SlowDown", headers=(("retry-after", "1"),)))
    assert ask(proxy)[0] == 429
    proxy.begin(lambda *_: Act("flip"))
    assert sum(byte.bit_count() for byte in ask(proxy)[1]) == 1
    for act in (Act("reset"), Act("lost"), Act("cut")):
        proxy.begin(lambda *_, act=act: act)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask(proxy)
    proxy.end()
    assert ask(proxy, "PUT") == (200, b"\0" * 100)
    assert proxy.done == 5
