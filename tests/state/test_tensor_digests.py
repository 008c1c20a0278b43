"""Digests of tensors in memory: equal for equal bytes, another for any change, whatever the tensor is like."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultlayer_hf.state.saved_digests import (
    StateDigests,
    digests_name,
    in_words,
    list_tensors,
    read_digests,
    state_differences,
)
from vaultlayer_hf.state.tensor_digests import differing, digest_tensors, model_tensors, plain_name

BLOCK = 1 << 17  # words of 8 bytes


def digest(tensor: torch.Tensor) -> str:
    """Return one tensor's digest."""
    return digest_tensors([("it", tensor)])["it"]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5000), st.integers(0, 10**9), st.sampled_from([torch.uint8, torch.float16, torch.float32])
)
def test_any_change_of_one_element_is_seen(length: int, seed: int, dtype: torch.dtype) -> None:
    """Whatever element is changed, by one bit, the digest is another."""
    chance = torch.Generator().manual_seed(seed)
    tensor = torch.randint(0, 255, (length * dtype.itemsize,), dtype=torch.uint8, generator=chance).view(
        dtype
    )
    changed = tensor.clone()
    place = int(torch.randint(0, length * dtype.itemsize, (1,), generator=chance))
    changed.view(torch.uint8)[place] ^= 1 << seed % 8
    assert digest(tensor) == digest(tensor.clone())
    assert digest(tensor) != digest(changed)


@pytest.mark.parametrize("length", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 3])
def test_blocks_may_not_change_places(length: int) -> None:
    """Where the same words stand in another order, within a block or from block to block, the digest is another."""
    tensor = torch.arange(length)
    swapped = tensor.clone()
    swapped[0], swapped[-1] = tensor[-1], tensor[0]
    assert digest(tensor) != digest(swapped)
    assert digest(tensor) != digest(tensor.roll(1))
    if length == 2 * BLOCK:
        assert digest(tensor) != digest(torch.cat([tensor[BLOCK:], tensor[:BLOCK]]))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.zeros(0),
        torch.zeros(3, dtype=torch.bool),
        torch.randn(5, 7).t(),
        torch.randn(9)[1:4],
        torch.arange(9, dtype=torch.float16)[1:8],
        torch.randn(3, dtype=torch.complex64),
        torch.randn(7).to(torch.float8_e4m3fn),
        torch.randn(3, 4, requires_grad=True),
    ],
    ids=["scalar", "empty", "bool", "transposed", "slice", "odd slice", "complex", "float8", "parameter"],
)
def test_every_kind_of_tensor_has_one(tensor: torch.Tensor) -> None:
    """A tensor's digest is that of a plain copy of it, wherever it begins and however it lies in memory."""
    assert digest(tensor) == digest(tensor.detach().clone(memory_format=torch.contiguous_format))


def test_the_digests_stay_what_they_are() -> None:
    """Digests are kept with checkpoints: a later version must come to the same ones."""
    tensors = [
        ("words", torch.arange(10)),
        ("bytes", torch.arange(13, dtype=torch.uint8)),
        ("small", torch.arange(1 << 13)),
        ("larger", torch.arange((1 << 13) + 1)),
        ("long", torch.arange(BLOCK * 2 + 5)),
    ]
    assert digest_tensors(tensors) == KNOWN


KNOWN = {
    "words": "int64 10 5bda4f64b06466fc",
    "bytes": "uint8 13 f1dbab68cbe27f91",
    "small": "int64 8192 5c5c3f2abc416871",
    "larger": "int64 8193 79d86fc6b9d04025",
    "long": "int64 262149 b1a066ebeb3c21f1",
}


def test_what_has_no_content_is_left_out() -> None:
    """Nothing is said of a tensor on the meta device."""
    assert digest_tensors([("it", torch.zeros(3, device="meta"))]) == {}


def test_a_dtype_alone_says_nothing_of_the_content() -> None:
    """A tensor in another dtype isn't called different: its content can't be compared by digest."""
    then = digest_tensors([("a", torch.ones(3)), ("b", torch.ones(3)), ("c", torch.ones(3))])
    now = digest_tensors([("a", torch.ones(3, dtype=torch.float16)), ("b", torch.zeros(3))])
    assert differing(then, now) == ["b", "c"]


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own, in torch.compile
def test_names_are_those_without_wrappers() -> None:
    """torch.compile changes no tensor's name, and what is shared or not kept stands once or not at all."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[1].register_buffer("passing", torch.zeros(1), persistent=False)
    plain = dict(model_tensors(model))
    assert "1.running_mean" in plain
    assert "1.passing" not in plain
    assert dict(model_tensors(torch.compile(model))).keys() == plain.keys()
    assert plain_name("model._orig_mod._fsdp_wrapped_module.layer.weight") == "model.layer.weight"


def test_only_what_is_trained() -> None:
    """Of a model with a frozen part an adapter's checkpoint speaks for the trained modules alone, buffers included."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    names = [name for name, _ in model_tensors(model, trained_only=True)]
    assert names == ["1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]


def test_a_states_digests_are_written_and_read(tmp_path: Path) -> None:
    """Model, optimizer and schedule come back as they were; a change of any of them is told in words."""
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.ones(4)).sum().backward()
    optimizer.step()
    schedule.step()
    saved = list_tensors({"": model}, [optimizer], [schedule]).digests()
    saved.write(tmp_path, 0)
    assert read_digests(tmp_path, 0) == saved
    assert state_differences(saved, list_tensors({"": model}, [optimizer], [schedule]).digests()) == {}
    schedule.step()
    optimizer.state[model.weight]["exp_avg"].zero_()
    with torch.no_grad():
        model.bias.zero_()
    found = state_differences(saved, list_tensors({"": model}, [optimizer], [schedule]).digests())
    assert found["model"] == ["bias"]
    assert found["optimizer"] == ["0.exp_avg"]
    assert "last_epoch" in found["schedule"]
    assert "1 of 2 tensors of the model aren't what was saved, such as bias" in in_words(saved, found)


def test_rank_zero_speaks_for_all_where_all_hold_the_same(tmp_path: Path) -> None:
    """A rank without a file of its own takes rank 0's, unless each holds a part of its own."""
    StateDigests(model={"a": "x"}).write(tmp_path, 0)
    found = read_digests(tmp_path, 3)
    assert found is not None
    assert found.model == {"a": "x"}
    StateDigests(model={"a": "x"}, sharded=True).write(tmp_path, 0)
    assert read_digests(tmp_path, 3) is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"format": 9}', b'{"format": 1, "other": 2}', b"\xff"]
)
def test_a_file_that_says_nothing_is_no_reason_to_stop(tmp_path: Path, content: bytes) -> None:
    """Whatever stands in the file, a checkpoint that can't be compared is taken as it is."""
    (tmp_path / digests_name(0)).write_bytes(content)
    assert read_digests(tmp_path, 0) is None
