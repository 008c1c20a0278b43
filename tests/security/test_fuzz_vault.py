"""Whoever can write to a vault: entries, manifests and listings of any content are taken or refused, never obeyed.

The corpus holds the documents that once did harm; ``python -m tests.security`` looks for more.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.mutations import Document, fuzz, variants
from tests.security.world import CORPUS, Vandal, signed, use_everything
from tests.vault.tools import Run
from vaultlayer_hf import VaultLayerError
from vaultlayer_hf.errors import CorruptError
from vaultlayer_hf.stores.base import ObjectInfo, Store
from vaultlayer_hf.testing.faults import FaultStore
from vaultlayer_hf.vault.keys import entry_key, manifest_key
from vaultlayer_hf.vault.log.entries import read_entries
from vaultlayer_hf.vault.log.entry import decode_entry
from vaultlayer_hf.vault.log.log import Log, Writer
from vaultlayer_hf.vault.manifest import decode_manifest, decode_part
from vaultlayer_hf.vault.parse import load
from vaultlayer_hf.vault.retention.prune import clean_orphans, delete_retired, find_leftovers

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module")
def vandal(tmp_path_factory: pytest.TempPathFactory) -> Vandal:
    """A small vault in memory that can be made anew with one object replaced."""
    return Vandal(tmp_path_factory.mktemp("vandal"))


def check_entry(vandal: Vandal, number: int, document: Document) -> None:
    """Put an entry into a vault, its own digest made to fit, and use the vault in every way."""
    store = vandal.vault({entry_key(number): signed(document)})
    use_everything(store)


@fuzz(60)
@given(data=st.data())
def test_no_entry_makes_a_reader_fail_in_another_way(vandal: Vandal, data: st.DataObject) -> None:
    """With any entry in its log a vault is listed, explained, verified and shown, or refused by a typed error."""
    number = data.draw(st.sampled_from(sorted(vandal.entries)))
    check_entry(vandal, number, data.draw(variants([vandal.entries[number]])))


@fuzz(40)
@given(data=st.data())
def test_no_manifest_makes_a_reader_fail_in_another_way(vandal: Vandal, data: st.DataObject) -> None:
    """Neither does any manifest for which the log vouches."""
    use_everything(vandal.with_manifest(data.draw(variants([vandal.manifest]))))


@fuzz(25)
@given(data=st.data())
def test_a_start_on_any_vault_is_right_or_refused(vandal: Vandal, data: st.DataObject) -> None:
    """A start writes inside its output folder alone, resumes from a whole checkpoint or says why not, and never begins
    at step 0 on a vault that held checkpoints.
    """
    number = max(vandal.entries)
    if data.draw(st.booleans()):
        store = vandal.vault({entry_key(number): signed(data.draw(variants([vandal.entries[number]])))})
    else:
        store = vandal.with_manifest(data.draw(variants([vandal.manifest])))
    before = vandal.payload(store)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "above", "output")
        run = Run(store, output)
        try:
            path = run.resume()
        except VaultLayerError:
            path = None
        else:
            assert path is not None or vandal.is_empty(store), "step 0 in silence"
        finally:
            run.close()
        if path is not None:
            assert path.parent == output
            assert vandal.is_saved(path), f"{path} is no checkpoint that was ever saved"
        there = [one for one in Path(scratch).rglob("*") if output not in (one, *one.parents)]
        assert there == [output.parent] or not there
    assert vandal.payload(store) == before, "a start has changed data"


@fuzz(80)
@given(number=st.integers(1, 4), data=st.data())
def test_no_bytes_are_taken_for_an_entry(vandal: Vandal, number: int, data: st.DataObject) -> None:
    """An entry with bytes cut, flipped, repeated or put in is recognised by its own digest, whatever was done."""
    whole = signed(vandal.entries[number])
    at = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(0, 40))
    put = data.draw(st.binary(max_size=40))
    changed = whole[:at] + put + whole[at + length :]
    if changed != whole:
        with pytest.raises(CorruptError):
            decode_entry(changed, number)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.json")), ids=lambda path: path.stem)
def test_what_once_did_harm_is_refused(vandal: Vandal, path: Path) -> None:
    """Each document of the corpus is refused as corrupt, and a vault that holds it can still be looked at."""
    kind = path.stem.split("-")[0]
    content = json.loads(path.read_bytes())
    if kind == "entry":
        with pytest.raises(CorruptError):
            decode_entry(signed(content), content["number"])
        check_entry(vandal, content["number"], content)
    elif kind == "manifest":
        with pytest.raises(CorruptError):
            decode_manifest(path.read_bytes(), "it")
        use_everything(vandal.with_manifest(content))
    else:
        assert kind == "part"
        with pytest.raises(CorruptError):
            decode_part(path.read_bytes(), 0, "it")


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"1,", b"[[]],", b'{"a":[]},'])
def test_memory_for_a_text_is_bounded(unit: bytes) -> None:
    """A text of the allowed length that would take gigabytes once it is parsed is refused before that."""
    text = b'{"format_version":1,"x":[' + unit * (60_000_000 // len(unit)) + b"0]}"
    with pytest.raises(CorruptError, match="more values"):
        load(text, "it")


class ListsAnything(FaultStore):
    """A store whose listings name what its server made up; all else is the inner store's."""

    def __init__(self, inner: Store, listed: list[ObjectInfo]) -> None:
        super().__init__(inner)
        self.listed = listed

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        yield from self.listed

    @property
    def deleted(self) -> set[str]:
        """Keys that somebody wanted to be deleted."""
        return {operation.key for operation in self.operations if operation.name == "delete"}


KEYS = st.sampled_from(
    [
        "", "/", "..", "../x", "/etc/passwd", "log/", "log/1.json", "log/00000000000000000003.json",
        "log/99999999999999999999.json", "log/000000000000000000004.json", "data/", "data/1", "data/1/checkpoint-100",
        "data/1/checkpoint-100/.vault/upload.json", "data/1/checkpoint-999/.vault/upload.json",
        "data/1/../../etc/passwd", "data/0/checkpoint-1/x", "data/99999999999999999999/checkpoint-1/x",
        "data/1/checkpoint-1/\x1b[2J", "data/1/checkpoint-1/\ud800", "probe/clock-0123456789abcdef", "hint.json",
        "log/\u0661\u0661.json", "x" * 5000,
    ]
) | st.text(max_size=30)  # fmt: skip
LISTINGS = st.lists(
    st.builds(
        ObjectInfo,
        KEYS,
        st.integers(-(2**70), 2**70),
        st.none() | st.text(max_size=5),
        st.floats(allow_nan=True, allow_infinity=True),
    ),
    max_size=8,
)
ASKS: list[Callable[[Any], Any]] = [
    lambda store: Log(store).last(),
    lambda store: read_entries(store, lambda reason: None),
    lambda store: find_leftovers(store.list("data/"), {"data/1/checkpoint-100"}),
]


@fuzz(50)
@given(listed=LISTINGS)
def test_no_listing_makes_a_reader_fail_in_another_way(vandal: Vandal, listed: list[ObjectInfo]) -> None:
    """Keys, sizes and times that a server makes up are passed over, or refused by a typed error."""
    store = ListsAnything(vandal.vault({}), listed)
    for ask in ASKS:
        try:
            ask(store)
        except VaultLayerError:
            pass


@fuzz(60)
@given(listed=LISTINGS)
def test_no_listing_has_a_writer_delete_what_isnt_its_own(vandal: Vandal, listed: list[ObjectInfo]) -> None:
    """Whatever a server lists, tidying deletes no log, no live checkpoint, and nothing outside the vault's own keys."""
    inner = vandal.vault({})
    writer = Writer.claim(inner, Log(inner))[0]
    live = {commit.folder for commit in writer.state.commits}
    store = ListsAnything(inner, listed)
    for tidy in (lambda: clean_orphans(store, writer), lambda: delete_retired(store, writer)):
        try:
            tidy()
        except VaultLayerError:
            pass
    for key in store.deleted:
        assert key.startswith(("data/", "probe/")), key
        assert not any(key.startswith(f"{folder}/") for folder in live), key
        assert ".." not in key.split("/"), key
    assert manifest_key("data/1/checkpoint-100") in {item.key for item in inner.list("")}
