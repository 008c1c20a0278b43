"""A digest of each tensor of a training's state, cheap enough for every save: what was loaded is what was saved.

A file's digest vouches for the file. Whether its bytes have reached the model is another question: a loader may match
names leniently (``load_state_dict(strict=False)``), and what it doesn't match stays as it was made, without a word.
So the digest is taken of the tensors in the model: once at the save, and once more behind the load.

The digest is a sum of the tensor's 8-byte words modulo 2**64, each times a fixed odd factor for its place (multiply-add
hashing). It finds every change of a single word, and any other difference but one in about 2**60; it is no protection
against an enemy, which the digests of the files are. It reads memory at the speed of memory (15 GB/s on one core of an
AMD EPYC, where blake3 takes 7), and on an accelerator nothing but a few bytes for each tensor leaves the device.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy
import torch

from vaultlayer_hf.base.digest import digest_bytes

Digests = dict[str, str]
"""``"<dtype> <shape> <digest>"`` of each tensor by name, such as ``"float32 4x8 9f86d081884c7d65"``."""

_BLOCK_WORDS = 1 << 17
"""8-byte words that share one row of factors: 1 MiB, which stays in a core's cache."""
_SMALL_BYTES = 1 << 16
"""Bytes of a tensor up to which numpy takes its digest: the same in a third of the time, most of which is calls."""
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def digest_tensors(tensors: Iterable[tuple[str, torch.Tensor]]) -> Digests:
    """Return the digest of each tensor, by name; of a sharded one that of this rank's shard.

    Left out are tensors without content (on the meta device), and those of subclasses whose bytes can't be had. What
    lies on an accelerator is digested there, all of it before the first result is waited for.
    """
    pending = []
    for name, tensor in tensors:
        local = local_part(tensor)
        if local.device.type == "meta":
            continue
        try:
            sums = _small_sums(local) if _is_small(local) else _sums(local)
        except (RuntimeError, NotImplementedError, TypeError):
            # Such as a quantised tensor made of several others.
            continue
        kind = str(local.dtype).removeprefix("torch.")
        pending.append((name, f"{kind} {'x'.join(map(str, local.shape)) or 'scalar'}", sums))
    return {
        name: f"{what} {digest_bytes(_bytes_of(sums)).rpartition(':')[2][:16]}"
        for name, what, sums in pending
    }


def differing(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names that ``then`` holds and ``now`` holds with another content, or not at all. Pure.

    Where only the dtype differs nothing can be said of the content, so such a tensor isn't named.
    """
    found = []
    for name, digest in then.items():
        here = now.get(name)
        if here is None or (here != digest and here.split(" ")[0] == digest.split(" ")[0]):
            found.append(name)
    return found


def model_tensors(
    model: torch.nn.Module, *, trained_only: bool = False
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the parameters and persistent buffers of a model, by the names that they have without any wrapper.

    Read from the modules, since ``state_dict()`` is a collective where the model is sharded.

    Args:
        model: may be wrapped.
        trained_only: only parameters that are trained, and what else their modules hold: what an adapter's file has.
    """
    for prefix, module in _plain(model).named_modules():
        if trained_only and not any(
            parameter.requires_grad for parameter in module.parameters(recurse=False)
        ):
            continue
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield plain_name(f"{prefix}.{name}" if prefix else name), tensor


def optimizer_tensors(optimizer: Any, *, but: Container[int] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of an optimizer's state, by the number of the parameter and the name within its state.

    The number counts the parameters through all groups, as in ``optimizer.state_dict()``. ``but``: ``id`` of parameters
    whose state is left out.
    """
    number = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = {} if id(parameter) in but else optimizer.state.get(parameter, {})
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    yield f"{number}.{name}", value
            number += 1


def plain_name(name: str) -> str:
    """Return a tensor's name without what wrappers put into it: torch.compile, FSDP, activation checkpointing."""
    for part in _WRAPPERS:
        name = name.replace(part, "")
    return name


def is_shard(tensor: torch.Tensor) -> bool:
    """Tell whether a parameter is one rank's part: a DTensor (FSDP 2), a flat one (FSDP 1), or emptied by ZeRO-3."""
    return any(hasattr(tensor, name) for name in ("to_local", "ds_tensor", "_is_flat_param"))


def _plain(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside the wrappers whose part of a name could be a module's own name, too."""
    while isinstance(model, torch.nn.parallel.DistributedDataParallel):
        model = model.module
    return model


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a tensor: DTensor's local one, and what ZeRO-3 keeps beside its empty parameter."""
    shard = getattr(tensor, "ds_tensor", None)
    if isinstance(shard, torch.Tensor):
        return shard.detach()
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _bytes_of(sums: torch.Tensor | bytes) -> bytes:
    found: bytes = sums if isinstance(sums, bytes) else sums.cpu().numpy().tobytes()
    return found


def _is_small(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is one of torch's own, on the CPU, whose digest takes its calls longer than its bytes."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.device.type == "cpu"
    return plain and tensor.numel() * tensor.element_size() <= _SMALL_BYTES


def _small_sums(tensor: torch.Tensor) -> bytes:
    """Return what ``_sums`` gives, as bytes, of a tensor that has less than one block."""
    content: bytes = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    count = len(content) // 8
    words = numpy.frombuffer(content, numpy.int64, count)
    total = numpy.multiply(words, _few_factors()[:count]).sum(dtype=numpy.int64)
    rest = content[8 * count :]
    found: bytes = total.tobytes()
    return found + (rest.ljust(8, b"\0") if rest else b"")


def _sums(tensor: torch.Tensor) -> torch.Tensor:
    """Return one weighted sum for each block of a tensor's bytes, on its device."""
    content = tensor.contiguous().reshape(-1).view(torch.uint8)
    if content.storage_offset() % 8:
        content = content.clone()  # a view into another tensor needn't begin at a whole word
    whole = content.numel() // 8 * 8
    words, rest = content[:whole].view(torch.int64), content[whole:]
    factors = _factors(content.device)
    blocks = words.numel() // _BLOCK_WORDS
    ends = words[blocks * _BLOCK_WORDS :]
    sums = [
        _products(words[: blocks * _BLOCK_WORDS].view(blocks, _BLOCK_WORDS), factors),
        (ends * factors[: ends.numel()]).sum().reshape(1),
    ]
    if rest.numel():
        # One to seven bytes are left over. The zeros behind them can't be mistaken for content: the shape and the
        # dtype, and so the length, stand beside the digest.
        last = torch.zeros(8, dtype=torch.uint8, device=content.device)
        last[: rest.numel()] = rest
        sums.append(last.view(torch.int64))
    return torch.cat(sums)


def _products(rows: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Return each row's product with the factors; integers wrap around, which is arithmetic modulo 2**64."""
    if rows.device.type == "cpu":
        return torch.mv(rows, factors)  # vectorised: ten times as fast as a product and a sum
    if not len(rows):
        return factors[:0]
    return torch.cat([(row * factors).sum().reshape(1) for row in rows])


@lru_cache(maxsize=8)
def _factors(device: torch.device) -> torch.Tensor:
    """Return the factors: fixed odd numbers, the same on every device and for ever, since digests are kept."""
    # An explicit recurrence (splitmix64) rather than torch's generator, whose numbers no version vouches for.
    state = torch.arange(1, _BLOCK_WORDS + 1, dtype=torch.int64) * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        state = (state ^ _shifted(state, shift)) * factor
    return ((state ^ _shifted(state, 31)) | 1).to(device)


@lru_cache(maxsize=1)
def _few_factors() -> numpy.typing.NDArray[numpy.int64]:
    found: numpy.typing.NDArray[numpy.int64] = _factors(torch.device("cpu"))[: _SMALL_BYTES // 8].numpy()
    return found


def _shifted(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift to the right without the sign, as for unsigned words."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)
