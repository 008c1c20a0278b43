"""Messages between ranks: what may cross does so unchanged, and bytes of strangers are neither believed nor run."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from torch.distributed import HashStore

from vaultlayer_hf import errors
from vaultlayer_hf.errors import RanksError, StoreDeniedError, StoreError, VaultLayerError
from vaultlayer_hf.session.access import Claim
from vaultlayer_hf.session.messages import MessageStore, decode, encode
from vaultlayer_hf.session.save.rounds import NodeFiles, RankStatus, SaveSummary, UploadPlan
from vaultlayer_hf.session.stop.notice import LastSave, RemainingWork
from vaultlayer_hf.vault.log.entry import Commit, VaultState
from vaultlayer_hf.vault.manifest import FileEntry, Manifest

COMMIT = Commit(3, 1, 1, 500, "data/1/checkpoint-500", "2026-01-01T00:00:00+00:00", 9, 2, "digest", 80)
MESSAGES = [
    None,
    (1, "two", 3.5, True, None, float("inf")),
    {"a": [1, {2: (3,)}], 4: {"b"}, "c": frozenset({("d", 5)})},
    [(RankStatus(1, "fenced", "host: slow"), True), (RankStatus(0), False)],
    SaveSummary(None, ((1, 1, "slow"),), (1, 2), (COMMIT,), 500),
    NodeFiles(1, ("ä", "b/c"), None, ("checkpoint-1",)),
    UploadPlan({"a": 1}, "checkpoint-500", (1,), frozenset({"a", "b"}), None, ("checkpoint-1",)),
    Claim(7, "id", VaultState("id", 6).claimed(7)),
    Manifest(500, 1, 1, (FileEntry("a", 3, "digest"),), world_size=2, parameters=(("w", (2, 3), "float32"),)),
    (RemainingWork(1, 2, 3.0, None), LastSave(True, "there is no deadline")),
]


class Store(HashStore):  # type: ignore[misc]
    """A store of torch, within this process, that knows the key that was set last."""

    last = ""

    def set(self, key: str, value: bytes) -> None:
        self.last = key
        super().set(key, value)


@dataclass
class Stranger:
    """A class of somebody else."""

    value: int = 0


_fired: list[str] = []


def _fire() -> None:
    _fired.append("unpickled")


class Firing:
    """Acts when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _fire, ()


def messages(nonce: str = "nonce", store: Any = None) -> MessageStore:
    return MessageStore(store or Store(), nonce)


@pytest.mark.parametrize("value", MESSAGES, ids=lambda value: type(value).__name__)
def test_what_ranks_tell_each_other_crosses_unchanged(value: Any) -> None:
    """Each kind of value that is exchanged is the same on the other side, types of containers included."""
    box = messages()
    box.put("round/1", value)
    assert box.there(["round/1"])
    (found,) = box.get_all(["round/1"])
    assert found == value
    assert type(found) is type(value)
    box.delete("round/1")
    assert not box.there(["round/1"])


@pytest.mark.parametrize("name", list(errors.__all__))
def test_errors_cross_as_type_and_message(name: str) -> None:
    """Every error of ours is of the same class, and says the same, on the other side."""
    kind = getattr(errors, name)
    error = (
        kind("put", "log/1", "no", "a hint") if issubclass(kind, StoreError) else kind("why, and what to do")
    )
    found = decode(encode(error))
    assert (type(found), str(found)) == (kind, str(error))


def test_an_error_of_a_class_below_ours_crosses_as_ours() -> None:
    """An error that only this process knows is the nearest one that all know."""

    class Denied(StoreDeniedError):
        pass

    found = decode(encode(Denied("put", "log/1", "no")))
    assert (type(found), found.reason) == (StoreDeniedError, "no")


def test_anything_else_is_a_mistake_of_who_says_it() -> None:
    """A value of a class of somebody else can't be told, and nothing is left in the store."""
    box = messages()
    for value in (Stranger(), object(), b"bytes", ValueError("x")):
        with pytest.raises(TypeError, match="can't be told"):
            box.put("round/1", value)
    assert not box.there(["round/1"])


@given(some.binary(max_size=300))
def test_bytes_of_strangers_are_refused(data: bytes) -> None:
    """Whatever lies under a key ends as RanksError."""
    store = Store()
    box = messages(store=store)
    box.put("round/1", 1)
    store.set(store.last, data)
    with pytest.raises(RanksError, match="no message of this run"):
        box.get("round/1")


def test_a_pickle_is_never_run() -> None:
    """What the store was good for before: an object that acts when it is unpickled. It isn't."""
    store = Store()
    box = messages(store=store)
    pickle.loads(pickle.dumps(Firing()))
    assert _fired == ["unpickled"], "it does act when it is unpickled"
    _fired.clear()
    box.put("round/1", 1)
    store.set(store.last, pickle.dumps(Firing()))
    with pytest.raises(RanksError):
        box.get("round/1")
    assert not _fired


def test_a_message_stands_for_no_other() -> None:
    """One copied to another key, one of another conversation, and one with a changed byte are refused."""
    store = Store()
    box, other = messages(store=store), messages("another", store)
    box.put("round/2", "stop")
    copied = bytes(store.get(store.last))
    other.put("round/1", "stop")
    foreign = bytes(store.get(store.last))
    box.put("round/1", "stop")
    for data in (copied, foreign, bytes(store.get(store.last)).replace(b"stop", b"save")):
        store.set(store.last, data)
        with pytest.raises(RanksError):
            box.get("round/1")


json_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=8),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(["tuple", "set", "dict", "dataclass", "error", "fields", "args"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(json_values)
def test_any_json_is_a_value_or_a_value_error(found: Any) -> None:
    """Even one who knows the nonce can make nothing but values: no class of others, no function."""
    try:
        value = decode(json.loads(json.dumps(found)))
    except ValueError:
        return
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    "found",
    [
        {"dataclass": "subprocess:Popen", "fields": [["true"]]},
        {"dataclass": "os:system", "fields": ["true"]},
        {"dataclass": "vaultlayer_hf.session.session:Session", "fields": []},
        {"dataclass": f"{__name__}:Stranger", "fields": [1]},
        {"error": "SystemExit", "args": ["1"]},
        {"error": "annotations", "args": []},
    ],
    ids=lambda found: str(next(iter(found.values()))),
)
def test_no_other_class_can_be_named(found: Any) -> None:
    """Names of classes that are no messages are refused before anything is called."""
    with pytest.raises(ValueError, match=r"no class of messages|no error of ours"):
        decode(found)


def test_errors_of_ours_are_listed() -> None:
    """The errors that can cross are those of the public tree."""
    assert all(issubclass(getattr(errors, name), VaultLayerError) for name in errors.__all__)
