"""The identity of a model: names, shapes and dtypes of its parameters, without touching their values.

What must be the same at a start is what is trained. A weight that isn't may lie in memory in another way than when the
checkpoint was saved: a base under an adapter in bfloat16 or in 4 bits on a smaller GPU, say. It goes on from there, as
stock does, and what is different is said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaultlayer_hf.state.tensor_digests import plain_name

if TYPE_CHECKING:
    import torch

Parameters = tuple[tuple[str, tuple[int, ...], str], ...]
_SHOWN = 3
"""Parameters that a message names, at most."""


@dataclass(frozen=True)
class ModelIdentity:
    """A model at hand, as a start compares it with a checkpoint's.

    Attributes:
        parameters: (name, shape, dtype) of each parameter, ordered by name; empty where they aren't known.
        frozen: names, without wrappers, of the parameters that aren't trained, and of the modules of whose own
            parameters none is.
        adapter: whether a checkpoint of it holds only what is trained, as with PEFT.
    """

    parameters: Parameters = ()
    frozen: frozenset[str] = frozenset()
    adapter: bool = False

    def within(self, prefix: str) -> ModelIdentity:
        """Return it as a part of several models, with ``prefix`` before each name."""
        return ModelIdentity(
            tuple((f"{prefix}{name}", shape, dtype) for name, shape, dtype in self.parameters),
            frozenset(f"{prefix}{name}" for name in self.frozen),
            self.adapter,
        )

    def is_frozen(self, name: str) -> bool:
        """Tell whether a parameter isn't trained, or would not be if its module had one of that name."""
        return name in self.frozen or _module_of(name) in self.frozen


@dataclass(frozen=True)
class Comparison:
    """How a checkpoint's parameters and a model's differ, in words; each empty where there is nothing to say.

    Attributes:
        refusal: what makes it another model.
        remark: what may be different, but should be known.
    """

    refusal: str = ""
    remark: str = ""


def identity_of(model: torch.nn.Module, *, adapter: bool = False) -> ModelIdentity:
    """Return the identity of a model; ``adapter``: a checkpoint of it holds only what is trained."""
    frozen = {plain_name(name) for name, parameter in model.named_parameters() if not parameter.requires_grad}
    frozen |= {
        plain_name(name)
        for name, module in model.named_modules()
        if not any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    }
    return ModelIdentity(
        tuple(
            sorted(
                (name, _shape(parameter), str(parameter.dtype).removeprefix("torch."))
                for name, parameter in model.named_parameters()
            )
        ),
        frozenset(frozen),
        adapter,
    )


def joined(parts: Iterable[ModelIdentity]) -> ModelIdentity:
    """Return the identity of several models that one checkpoint holds."""
    found = list(parts)
    return ModelIdentity(
        tuple(sorted(each for part in found for each in part.parameters)),
        frozenset().union(*(part.frozen for part in found)),
    )


def compare_parameters(saved: Parameters, model: ModelIdentity) -> Comparison:
    """Compare a checkpoint's parameters with those of the model at hand. Pure."""
    # torch.compile and FSDP put a part of their own into each name, and the same model is trained with and without.
    there = {plain_name(name): (shape, dtype) for name, shape, dtype in saved}
    here = {plain_name(name): (shape, dtype) for name, shape, dtype in model.parameters}
    refused: dict[str, str] = {}
    passed: dict[str, str] = {}
    for name in there:
        if name not in here:
            # Quantised weights may have other names, or be no parameters at all. Only an adapter's checkpoint does
            # without them.
            found = passed if model.adapter and model.is_frozen(name) else refused
            found[name] = f"{name} is only in the checkpoint"
    for name in here:
        if name not in there:
            found = passed if model.adapter and model.is_frozen(name) else refused
            found[name] = f"{name} is only in the model"
    for name in there:
        if name in here and there[name] != here[name]:
            (shape, dtype), (own_shape, own_dtype) = there[name], here[name]
            # 4 bits are packed into a tensor of another shape. The same dtype in another shape is another model.
            fits = dtype != own_dtype and (shape == own_shape or model.adapter)
            found = passed if fits and model.is_frozen(name) else refused
            found[name] = (
                f"{name} is {_words(shape, dtype)} in the checkpoint, {_words(own_shape, own_dtype)} in the model"
            )
    return Comparison(_models_more(refused, there) or _listed(refused.values()), _listed(passed.values()))


def _models_more(refused: Collection[str], there: Collection[str]) -> str:
    """Return words for an Accelerator that holds what the checkpoint does, and further models; else nothing."""
    numbers = {name.partition("/")[0] for name in refused if name not in there and "/" in name}
    if not numbers or not all(name.partition("/")[0] in numbers for name in refused):
        return ""
    if not all(number.isdigit() for number in numbers):
        return ""
    return (
        f"this run's Accelerator has prepared {len(numbers)} model(s) more than the checkpoint holds. prepare() "
        "adds to what was prepared before, also where a notebook's cell calls it again: call accelerator.free_memory() "
        "ahead of it there"
    )


def _module_of(name: str) -> str:
    """Return the name of the module that a parameter belongs to, with the prefix of its model."""
    module, dot, _ = name.rpartition(".")
    return module if dot else name[: name.rfind("/") + 1]


def _shape(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    """Return the whole parameter's shape: ZeRO-3 leaves an empty tensor on each rank, and notes the shape."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _listed(lines: Iterable[str]) -> str:
    found = list(lines)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _words(shape: tuple[int, ...], dtype: str) -> str:
    return f"{'x'.join(map(str, shape)) or 'scalar'} {dtype}"
