"""Whether what is trained is still finite: a nan in a weight never goes away again, and every later step is lost.

One sum over each tensor tells: a nan or an infinity in it makes the sum one. It reads memory at its speed (16 GB/s on
one core of an AMD EPYC in float32, 6 in half precision), and only where the sum itself could have overflowed the
tensor's least and largest values are looked for. On an accelerator all is asked for before the first answer is waited
for.

A save keeps the training waiting meanwhile, so what needn't be read isn't: nothing in a training changes a frozen
parameter, and torch's usual optimizers compute a parameter from their state, so that a nan there makes the parameter
one in the same step. That leaves a third of what Adam trains, and of a large frozen base nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from vaultlayer_hf.state.tensor_digests import local_part, model_tensors, optimizer_tensors

_SHOWN = 3
SHOWN_BY_PARAMETERS = {
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.RMSprop,
}
"""Optimizers with which a nan in a parameter's state is a nan in that parameter; not so with Rprop and LBFGS."""


def nonfinite_state(
    models: Mapping[str, torch.nn.Module], optimizers: Iterable[Any] = (), loss: object = None
) -> str:
    """Return what of a training isn't finite, in words such as ``the loss is nan``; empty: all is.

    ``models`` by what stands before the names of their tensors; ``optimizers`` may be wrapped, others than torch's are
    passed over; ``loss``: the newest one that is known, or None. Never raises: a user's model may do what it likes.

    A parameter that is trained may hold neither nan nor an infinity. Buffers and an optimizer's state may hold
    infinities by design (a mask of ``-inf``, a running least), so only a nan counts there. Frozen parameters aren't
    looked at. Of a sharded model this rank's part is looked at.
    """
    return nonfinite_later(models, optimizers, loss)()


def nonfinite_later(
    models: Mapping[str, torch.nn.Module],
    optimizers: Iterable[Any] = (),
    loss: object = None,
    later: Callable[[torch.Tensor], Callable[[], torch.Tensor]] = lambda tensor: lambda: tensor,
) -> Callable[[], str]:
    """Return a function that gives what ``nonfinite_state`` would give now, though it is called later, on any thread.

    ``later``: called now with each tensor; returns a function that gives that tensor's present content later.
    """
    if isinstance(loss, float) and not math.isfinite(loss):
        return lambda: f"the loss is {loss}"
    try:
        tensors = [(name, later(one), strict) for name, one, strict in _tensors(models, optimizers)]
    except Exception:
        return lambda: ""

    def look() -> str:
        try:
            return _in_words(list(_nonfinite((name, one(), strict) for name, one, strict in tensors)))
        except Exception:
            return ""

    return look


def _in_words(found: list[str]) -> str:
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    verb = "is" if len(found) == 1 else "are"
    return f"{', '.join(found[:_SHOWN])}{more} {verb} nan or infinite"


def _tensors(
    models: Mapping[str, torch.nn.Module], optimizers: Iterable[Any]
) -> Iterator[tuple[str, torch.Tensor, bool]]:
    looked_at = set()
    for prefix, model in models.items():
        for name, tensor in model_tensors(model):
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            if is_parameter and not tensor.requires_grad:
                continue
            looked_at.add(id(tensor))
            yield f"{prefix}{name}", tensor, is_parameter
    for wrapped in optimizers:
        optimizer = getattr(wrapped, "optimizer", wrapped)
        if hasattr(optimizer, "param_groups") and hasattr(optimizer, "state"):
            shown = looked_at if type(optimizer) in SHOWN_BY_PARAMETERS else ()
            for name, tensor in optimizer_tensors(optimizer, but=shown):
                yield f"the optimizer's {name}", tensor, False


def _nonfinite(tensors: Iterable[tuple[str, torch.Tensor, bool]]) -> Iterator[str]:
    """Yield the names of tensors that aren't finite; the flag says whether infinities count, too."""
    pending = []
    for name, tensor, strict in tensors:
        local = local_part(tensor)
        if local.device.type == "meta" or not local.is_floating_point() or not local.numel():
            continue
        try:
            pending.append((name, local, strict, local.sum()))
        except (RuntimeError, NotImplementedError, TypeError):  # quantised, or 8 bits: can't be summed
            continue
    for name, local, strict, total in pending:
        if math.isfinite(total.item()):
            continue
        try:
            least, largest = torch.aminmax(local)  # both are nan where any value is
        except (RuntimeError, NotImplementedError, TypeError):
            continue
        if torch.isnan(least) or (strict and (torch.isinf(least) or torch.isinf(largest))):
            yield name
