"""A model's adapters, while a Trainer loads a checkpoint: what is active and trained stays as it is.

The Trainer's load makes the first active adapter the only one that is active and trained, and the optimizer, which is
made behind it, would have other parameters than the one whose state was saved. And PEFT writes some adapters in another
shape than they are trained in (AdaLoRA, a prefix with a projection), which it can't load again. Such a checkpoint has
the tensors themselves besides (adapter_rest.py): they are loaded ahead of the first step, and what was loaded is
compared then.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.tensor_digests import plain_name
from vaultlayer_hf.trainer.added import FOLDER
from vaultlayer_hf.trainer.trained import is_adapter, is_of_adapters
from vaultlayer_hf.trainer.wrapping import wrapped

BESIDE = "beside_adapter"
"""Under which name what PEFT's files lack is carried."""


@contextmanager
def adapters_kept(trainer: Any) -> Iterator[None]:
    """Have a Trainer's loads leave alone which adapters are active, and which parameters are trained."""
    model = peeled(trainer.model)
    if not is_adapter(model):
        yield
        return

    def around(load: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(load)
        def keeping(folder: Any, *args: Any, **kwargs: Any) -> Any:
            several = len(model.peft_config) > 1
            active = list(model.active_adapters)
            flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
            found = None
            try:
                found = load(folder, *args, **kwargs)
            except RuntimeError:  # of torch: other shapes
                if not (Path(folder) / FOLDER / f"{BESIDE}.pt").is_file():
                    raise
            if several:
                model.base_model.set_adapter(active)
                for name, parameter in model.named_parameters():
                    parameter.requires_grad_(flags.get(name, parameter.requires_grad))
            return found

        return keeping

    with wrapped(trainer, {"_load_from_checkpoint": around}):
        yield


def train_as_saved(model: Any, saved: Collection[str]) -> None:
    """Have those tensors of a model's adapters trained of which a checkpoint has digests, and no others of them.

    A checkpoint may hold an adapter that was made, or begun to be trained, in mid-run.
    """
    model = peeled(model)
    if not (is_adapter(model) and saved):
        return
    for name, parameter in model.named_parameters():
        if is_of_adapters(name, model):
            parameter.requires_grad_(plain_name(name) in saved)


def active_adapters(model: Any) -> list[str]:
    """Return the names of a model's active adapters; none of a model without any."""
    model = peeled(model)
    return [str(name) for name in model.active_adapters] if is_adapter(model) else []


def activate_adapters(model: Any, names: Sequence[str]) -> None:
    """Have these adapters of a model be the active ones, as far as it has them."""
    model = peeled(model)
    if not is_adapter(model) or not all(name in model.peft_config for name in names):
        return
    with contextlib.suppress(ValueError, AttributeError):  # of a kind that has no choice
        if len(names) == 1:
            model.set_adapter(names[0])
        else:
            model.base_model.set_adapter(list(names))
