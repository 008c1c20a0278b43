"""Manifests, parts and entries as hostile input: refused with a typed error, never obeyed, never believed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vault.tools import (
    Run,
    claim,
    commit_step,
    file_entry,
    flip,
    forge_entry,
    memory_store,
    sign,
)
from vaultlayer_hf.errors import CorruptError, FormatVersionError, VaultLayerError
from vaultlayer_hf.vault.keys import manifest_key
from vaultlayer_hf.vault.log.entry import ENTRY_LIMIT, Commit, Entry, VaultState, decode_entry, encode_entry
from vaultlayer_hf.vault.manifest import (
    Manifest,
    check_path,
    decode_manifest,
    encode_manifest,
    read_manifest,
)
from vaultlayer_hf.vault.parse import dump

GOOD = Manifest(
    step=500,
    token=3,
    seq=2,
    files=(file_entry("config.json"), file_entry("sub/weights.bin", b"abc")),
    world_size=2,
    parameters=(("layer.weight", (4, 4), "float32"),),
    best_step=400,
    saved_at=1.7e9,
    versions={"torch": "2.13"},
)
ENTRY = Entry(
    number=7,
    kind="commit",
    write_id="0" * 32,
    token=5,
    time="2026-01-01T00:00:00.000Z",
    detail={"step": 500},
    state=VaultState(
        vault_id="a" * 32,
        token=5,
        commits=(
            Commit(
                7,
                5,
                1,
                500,
                "data/5/checkpoint-500",
                "2026-01-01T00:00:00.000Z",
                10,
                2,
                "blake3:" + "0" * 64,
                99,
            ),
        ),
        retiring=("data/3/checkpoint-100",),
    ),
)


def manifest_with(**changes: Any) -> bytes:
    """Return the good manifest's bytes with fields replaced."""
    return json.dumps({**json.loads(encode_manifest(GOOD)), **changes}).encode()


def manifest_of_paths(*paths: str) -> bytes:
    """Return a manifest that lists these paths."""
    return manifest_with(files=[asdict(file_entry(path)) for path in paths])


def entry_with(state: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """Return the good entry's bytes with fields replaced, and a digest that fits."""
    body = json.loads(encode_entry(ENTRY))
    body.pop("check")
    body["state"] |= state or {}
    return sign({**body, **changes})


def test_what_is_written_is_read_back() -> None:
    """A manifest and an entry survive being written and read."""
    assert decode_manifest(encode_manifest(GOOD), "it") == GOOD
    assert decode_entry(encode_entry(ENTRY), 7) == ENTRY


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/..",
        "..",
        ".",
        "./a",
        "a//b",
        "a/",
        "",
        "a\\b",
        "..\\x",
        "C:/x",
        "C:",
        "a\0b",
        "a\nb",
        "a\x1b[31mb",
        "a\x7fb",
        "a" * 256,
        "/".join(["abcdefg"] * 200),
        "é" * 128,
        ".vault",
        ".vault/manifest.json",
        ".vault/x",
        "a\ud800b",
    ],
)
def test_paths_that_could_leave_the_folder_are_refused(path: str) -> None:
    """No path in a manifest can lead out of the checkpoint's folder, into ours, or to a name that no disk has."""
    with pytest.raises(CorruptError):
        check_path(path, "it")
    with pytest.raises(CorruptError):
        decode_manifest(manifest_of_paths(path), "it")


@pytest.mark.parametrize(
    "path", ["a", "a/b/c", ".metadata", "..a", "a..", "ünï/日本", "with space", "a.vault/x"]
)
def test_paths_of_real_checkpoints_are_taken(path: str) -> None:
    """Names that checkpoints really have are not refused."""
    assert check_path(path, "it") == path


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("a/b/c", "a/b"), ("a/b/c", "a")])
def test_a_tree_that_no_disk_can_hold_is_refused(paths: tuple[str, ...]) -> None:
    """A path that is listed twice, or that is both a file and a folder, is refused."""
    with pytest.raises(CorruptError):
        decode_manifest(manifest_of_paths(*paths), "it")


@pytest.mark.parametrize(
    "changes",
    [
        {"files": []},
        {"files": None},
        {"files": {}},
        {"files": "abc"},
        {"files": [None]},
        {"files": [{"path": "a", "size": -1, "digest": file_entry().digest}]},
        {"files": [{"path": "a", "size": 2**51, "digest": file_entry().digest}]},
        {"files": [{"path": "a", "size": 1.0, "digest": file_entry().digest}]},
        {"files": [{"path": "a", "size": True, "digest": file_entry().digest}]},
        {"files": [{"path": "a", "size": 1, "digest": "md5:00"}]},
        {"files": [{"path": "a", "size": 1}]},
        {"files": [{"size": 1, "digest": file_entry().digest}]},
        {"files": [{"path": ["a"], "size": 1, "digest": file_entry().digest}]},
        {"step": -1},
        {"step": 1.5},
        {"step": "5"},
        {"step": True},
        {"step": 10**30},
        {"token": 0},
        {"seq": 0},
        {"world_size": 0},
        {"world_size": 2**30},
        {"parameters": [["a", [1], 3]]},
        {"parameters": [["a", "1", "float32"]]},
        {"parameters": [["a", [None], "float32"]]},
        {"parameters": 3},
        {"best_step": -2},
        {"best_step": "x"},
        {"saved_at": math.nan},
        {"saved_at": math.inf},
        {"saved_at": -1},
        {"saved_at": "now"},
        {"saved_at": None},
        {"versions": []},
        {"format_version": 0},
        {"format_version": None},
        {"format_version": "1"},
        {"format_version": True},
    ],
)
def test_fields_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    """Wrong types, negative or huge numbers, missing fields and NaN are refused as corrupt."""
    with pytest.raises(CorruptError):
        decode_manifest(manifest_with(**changes), "it")


def test_more_files_than_any_checkpoint_has_are_refused() -> None:
    """A manifest of more than a million files is refused before its files are looked at."""
    with pytest.raises(CorruptError, match="at most"):
        decode_manifest(b'{"format_version":1,"files":[' + b"0," * 1_000_000 + b"0]}", "it")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"3",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format_version":1,"x":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"format_version":1,"x":1' + b"0" * 5000 + b"}",
        b'{"format_version":1,"x":NaN}',
        b'{"format_version":1,"x":1e999}',
        b'{"format_version":1,"x":"\\ud800"}',
        b'{"format_version":1,"check":"\\udfff"}',
    ],
)
def test_bytes_that_are_no_object_of_ours_are_refused(data: bytes) -> None:
    """Broken JSON, deep nesting, huge numbers, NaN and lone surrogates end in CorruptError, in both decoders."""
    with pytest.raises(CorruptError):
        decode_manifest(data, "it")
    with pytest.raises(CorruptError):
        decode_entry(data, 7)


def test_a_newer_format_is_refused_with_the_way_out() -> None:
    """A format version that this release doesn't know says that an upgrade reads it."""
    with pytest.raises(FormatVersionError, match="upgrade vaultlayer-hf"):
        decode_manifest(manifest_with(format_version=2), "it")
    with pytest.raises(FormatVersionError, match="upgrade vaultlayer-hf"):
        decode_entry(entry_with(format_version=2), 7)


@pytest.mark.parametrize(
    "data",
    [
        entry_with(kind="delete"),
        entry_with(number=8),
        entry_with(token=0),
        entry_with(token=None),
        entry_with(write_id=3),
        entry_with(detail=[]),
        entry_with(state={"commits": {}}),
        entry_with(state={"commits": [3]}),
        entry_with(state={"token": "x"}),
        entry_with(state={"retiring": ["log"]}),
        entry_with(state={"retiring": ["data/3/.."]}),
        entry_with(state={"retiring": ["data/3/a/b"]}),
        entry_with(state={"retiring": ["data/3/a\x1b[2J"]}),
        entry_with(state={"retiring": ["data/3"]}),
        entry_with(state={"retiring": ["data//x"]}),
        entry_with(state={"retiring": [3]}),
        entry_with(state={"metrics": {"loss": 10**400}}),
        entry_with(state={"finished": -1}),
    ],
)
def test_entries_out_of_bounds_are_refused(data: bytes) -> None:
    """A hostile entry with a digest that fits is refused where a field is not what it must be."""
    with pytest.raises(CorruptError):
        decode_entry(data, 7)


@pytest.mark.parametrize("vault_id", ["../../x", "/etc", "..", ".", "", "a/b", "a\\b", "a\0", "A" * 65])
def test_a_vault_id_is_never_a_path(vault_id: str) -> None:
    """The vault's id names a local folder of snapshots, so one that could lead elsewhere is refused."""
    with pytest.raises(CorruptError):
        decode_entry(entry_with(state={"vault_id": vault_id}), 7)


@pytest.mark.parametrize(
    "commit",
    [
        {"folder": "data/5/.."},
        {"folder": "data/5/a/b"},
        {"folder": "../data/5/a"},
        {"folder": "data/5/a\\b"},
        {"folder": "data/5/a\x1b[2J"},
        {"folder": "data/٥/a"},
        {"folder": "data/6/a"},
        {"number": 8},
        {"token": 8},
        {"manifest": "blake3:xyz"},
        {"files": 0},
        {"manifest_size": 0},
        {"pinned": 1},
        {"step": -1},
    ],
)
def test_commits_out_of_bounds_are_refused(commit: dict[str, Any]) -> None:
    """A commit in an entry can point only into its own token's data, and only back in time."""
    good = json.loads(encode_entry(ENTRY))["state"]["commits"][0]
    with pytest.raises(CorruptError):
        decode_entry(entry_with(state={"commits": [{**good, **commit}]}), 7)


def test_commits_out_of_order_are_refused() -> None:
    """The order of commits is the order of their numbers, so an entry that mixes them isn't believed."""
    good = json.loads(encode_entry(ENTRY))["state"]["commits"][0]
    other = {**good, "number": 6}
    assert len(decode_entry(entry_with(state={"commits": [other, good]}), 7).state.commits) == 2
    for commits in ([good, other], [good, good]):
        with pytest.raises(CorruptError):
            decode_entry(entry_with(state={"commits": commits}), 7)


def test_figures_that_are_no_numbers_dont_break_the_end_of_a_run() -> None:
    """An infinite loss at the end of a run is left out of the log, and the entry stays readable."""
    state = ENTRY.state.done(500, {"loss": math.inf, "grad_norm": math.nan, "steps": 3.0})
    entry = replace(ENTRY, kind="finish", state=state)
    assert decode_entry(encode_entry(entry), 7).state.metrics == {"steps": 3.0}


@pytest.mark.parametrize("position", ["start", "middle", "end"])
def test_a_damaged_entry_is_recognised(position: str) -> None:
    """One flipped bit anywhere in an entry is noticed by its own digest."""
    data = bytearray(encode_entry(ENTRY))
    data[{"start": 2, "middle": len(data) // 2, "end": len(data) - 3}[position]] ^= 1
    with pytest.raises(CorruptError):
        decode_entry(bytes(data), 7)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=[]))
    | st.sampled_from(["data/1/x", "claim", "commit", "blake3:" + "0" * 64]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(sorted(json.loads(encode_entry(ENTRY))["state"])) | st.text(), inner
        )
    ),
    max_leaves=10,
)
MANIFEST_FIELDS = sorted(json.loads(encode_manifest(GOOD)))
ENTRY_FIELDS = sorted(json.loads(encode_entry(ENTRY)))


@settings(max_examples=300)
@given(st.binary() | st.builds(lambda text: text.encode("utf-8", "surrogatepass"), st.text()))
def test_no_bytes_whatever_raise_anything_else(data: bytes) -> None:
    """Decoding arbitrary bytes ends in a value, CorruptError or FormatVersionError, never in another error."""
    for decode in (lambda: decode_manifest(data, "it"), lambda: decode_entry(data, 7)):
        with pytest.raises(CorruptError):
            decode()


@settings(max_examples=300)
@given(st.sampled_from(MANIFEST_FIELDS), JSON)
def test_no_manifest_field_whatever_raises_anything_else(name: str, value: Any) -> None:
    """A manifest with one arbitrary field is either taken, and then within bounds, or refused as corrupt."""
    try:
        manifest = decode_manifest(manifest_with(**{name: value}), "it")
    except CorruptError:
        return
    assert decode_manifest(encode_manifest(manifest), "it") == manifest


@settings(max_examples=300)
@given(st.sampled_from(ENTRY_FIELDS) | st.just("state"), JSON, st.booleans())
def test_no_entry_field_whatever_raises_anything_else(name: str, value: Any, signed: bool) -> None:
    """An entry with one arbitrary field, its digest made to fit or not, is taken or refused as corrupt."""
    body = json.loads(encode_entry(ENTRY))
    check = body.pop("check")
    target = body["state"] if name == "state" and isinstance(value, dict) else body
    target.update(value if target is not body else {name: value})
    try:
        data = sign(body) if signed else json.dumps({**body, "check": check}).encode()
    except ValueError:  # what no honest dump can write (NaN, lone surrogates), an attacker's may
        data = json.dumps({**body, "check": check}).encode()
    try:
        entry = decode_entry(data, 7)
    except CorruptError:
        return
    assert decode_entry(encode_entry(entry), 7) == entry


def test_the_log_vouches_for_the_manifest(tmp_path: Any) -> None:
    """A manifest that was edited, cut, enlarged, swapped or removed is refused by the digest in the log."""
    store = memory_store()
    writer = claim(store)
    first = commit_step(store, writer, tmp_path, 100, seq=1)
    second = commit_step(store, writer, tmp_path, 200, seq=2)
    key = manifest_key(first.folder)
    whole = store.read(key, limit=2**20)
    assert read_manifest(store, first).step == 100
    edited = {**json.loads(whole), "step": 101}
    other = store.read(manifest_key(second.folder), limit=2**20)
    for data in (dump(edited), whole[:-5], b"", whole + b" " * 2**20, other):
        store.write(key, data)
        with pytest.raises(CorruptError, match="manifest"):
            read_manifest(store, first)
    store.write(key, whole)
    flip(store, key)
    with pytest.raises(CorruptError, match="digest"):
        read_manifest(store, first)
    store.delete([key])
    with pytest.raises(CorruptError, match="missing"):
        read_manifest(store, first)


def test_a_manifest_of_another_commit_is_refused(tmp_path: Any) -> None:
    """A log entry that vouches for another commit's manifest isn't believed."""
    store = memory_store()
    writer = claim(store)
    first = commit_step(store, writer, tmp_path, 100)
    with pytest.raises(CorruptError, match="another commit"):
        read_manifest(store, replace(first, step=200))


def test_a_manifest_too_large_is_never_read(tmp_path: Any) -> None:
    """A manifest's size in the log bounds what is read, so that a hostile vault can't fill the memory."""
    store = memory_store()
    writer = claim(store)
    first = commit_step(store, writer, tmp_path, 100)
    with pytest.raises(CorruptError, match="more than"):
        read_manifest(store, replace(first, manifest_size=2**40))


def test_an_entry_that_could_not_be_read_again_is_never_written() -> None:
    """More live checkpoints than an entry can hold end in an error that says what to do, not in a dead log."""
    commit = ENTRY.state.commits[0]
    many = tuple(replace(commit, number=number) for number in range(1, ENTRY_LIMIT // 200))
    with pytest.raises(VaultLayerError, match="keep_last"):
        encode_entry(replace(ENTRY, number=10**6, state=replace(ENTRY.state, commits=many)))


@pytest.mark.parametrize("time", ["", "yesterday", "2026-01-01T00:00:00", "9999-12-31T23:59:59-23:59"])
def test_a_time_that_cannot_be_read_decides_nothing(tmp_path: Any, time: str) -> None:
    """The time in an entry is for people: a wrong one, or one without a zone, hinders no start."""
    store = memory_store()
    writer = claim(store)
    commit_step(store, writer, tmp_path, 100)
    forge_entry(store, 2, {"time": time})
    run = Run(store, tmp_path / "out")
    assert run.resume() is not None
    run.close()
