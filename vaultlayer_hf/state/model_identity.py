"""The identity of a model: names, shapes and dtypes of its parameters, without touching their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaultlayer_hf.state.tensor_digests import plain_name

if TYPE_CHECKING:
    import torch

Parameters = tuple[tuple[str, tuple[int, ...], str], ...]


def parameters_of(model: torch.nn.Module) -> Parameters:
    """Return (name, shape, dtype) of each parameter, ordered by name."""
    return tuple(
        sorted(
            (name, _shape(parameter), str(parameter.dtype).removeprefix("torch."))
            for name, parameter in model.named_parameters()
        )
    )


def _shape(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    """Return the whole parameter's shape: ZeRO-3 leaves an empty tensor on each rank, and notes the shape."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def parameter_differences(found: Parameters, expected: Parameters, limit: int = 3) -> str:
    """Return in words how a checkpoint's parameters differ from a model's; empty where they don't. Pure."""
    # torch.compile and FSDP put a part of their own into each name, and the same model is trained with and without.
    there = {plain_name(name): (shape, dtype) for name, shape, dtype in found}
    here = {plain_name(name): (shape, dtype) for name, shape, dtype in expected}
    lines = [f"{name} is only in the checkpoint" for name in there if name not in here]
    lines += [f"{name} is only in the model" for name in here if name not in there]
    for name in there:
        if name in here and there[name] != here[name]:
            lines.append(
                f"{name} is {_words(*there[name])} in the checkpoint, {_words(*here[name])} in the model"
            )
    more = f" and {len(lines) - limit} more" if len(lines) > limit else ""
    return "; ".join(lines[:limit]) + more


def _words(shape: tuple[int, ...], dtype: str) -> str:
    return f"{'x'.join(map(str, shape)) or 'scalar'} {dtype}"
