"""A long listing of an object store comes page by page, in the order of the keys, and goes on where it broke."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.servers import CannedServer
from vaultlayer_hf.errors import StoreError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import ObjectInfo
from vaultlayer_hf.stores.objects.listing import AT_ONCE, in_order
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy

LOG = [f"log/{number:08}.json" for number in range(3 * AT_ONCE)]


class Listing:
    """A server that lists keys as S3 does: pages of a thousand, each with a token for the next.

    Attributes:
        fails: how many answers from the second page on are 503.
        asked: start-after or the token of each request, in order.
    """

    def __init__(self, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys, self.fails, self.asked = keys, 0, list[str]()
        self.server = CannedServer(self.answer)
        monkeypatch.setenv("AWS_ENDPOINT_URL", self.server.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "B")

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        token, after = query.get("continuation-token", ""), query.get("start-after", "")
        self.asked.append(token or after)
        if token and self.fails:
            self.fails -= 1
            return 503, {}, b"<Error><Code>SlowDown</Code></Error>"
        keys = [key for key in self.keys if key.startswith(query["prefix"]) and key > max(token, after)]
        page, more = keys[:AT_ONCE], len(keys) > AT_ONCE
        found = "".join(
            f"<Contents><Key>{key}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in page
        )
        following = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
        text = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{found}{following}</ListBucketResult>"
        return 200, {"Content-Type": "application/xml"}, text.encode()


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[str]], Listing]]:
    """Starts servers that list keys, and ends them."""
    servers: list[Listing] = []

    def start(keys: list[str]) -> Listing:
        servers.append(Listing(keys, monkeypatch))
        return servers[-1]

    yield start
    for each in servers:
        each.server.close()


def test_only_what_is_wanted_is_asked_for(listing: Callable[[list[str]], Listing]) -> None:
    """Who takes the first objects of a long listing waits for, and holds, no more than the first pages."""
    server = listing(LOG)
    first = list(itertools.islice(open_store("s3://bucket").list("log/"), 10))
    assert [info.key for info in first] == LOG[:10]
    assert len(server.asked) <= 2


def test_a_broken_listing_goes_on_behind_the_last_key(listing: Callable[[list[str]], Listing]) -> None:
    """Where a later page can't be had for a while, the pages before it aren't asked for again."""
    server = listing(LOG)
    server.fails = 4  # the client tries three times by itself
    store = RetryingStore(open_store("s3://bucket"), RetryPolicy(base=0.01))
    assert [info.key for info in store.list("log/")] == LOG
    assert server.fails == 0
    assert server.asked.count("") == 1


KEYS = ["a", "a b/x", "a-b", "a-b/c", "a.txt", "a/1", "a/2/3", "a/2-3", "a0", "b", "b/x", "ä/1", "ä-1"]


def walked(keys: list[str]) -> list[str]:
    """Return keys as a walk from folder to folder meets them."""
    return sorted(keys, key=lambda key: [part.encode() for part in key.split("/")])


@pytest.mark.parametrize("order", [sorted, walked])
def test_both_orders_of_servers_become_that_of_the_keys(order: Callable[[list[str]], list[str]]) -> None:
    """By the bytes or folder by folder: a listing of any length comes out by the bytes of the keys."""
    keys = [
        f"p/{name}/{key}" for name in [*(f"n{i}" for i in range(200)), "n1-x", "n1 x", "n1.x"] for key in KEYS
    ]
    assert len(keys) > AT_ONCE
    found = [ObjectInfo(key, 1, None, 0.0) for key in order(keys)]
    assert [info.key for info in in_order(found, "p/")] == sorted(keys, key=str.encode)


def test_an_order_of_its_own_is_refused() -> None:
    """A long listing in no order that is known is an error: objects would be passed over in silence."""
    found = [ObjectInfo(f"log/{(number * 7919) % 5000:05}", 1, None, 0.0) for number in range(5000)]
    with pytest.raises(StoreError, match="order"):
        list(in_order(found, "log/"))
    assert [info.key for info in in_order(found[:500], "log/")] == sorted(info.key for info in found[:500])
