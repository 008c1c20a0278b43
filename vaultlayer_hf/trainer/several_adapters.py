"""A model with several adapters, while a Trainer loads a checkpoint: what is active and trained stays as it is.

The Trainer's load makes the first active adapter the only one that is active and trained, and the optimizer, which is
made behind it, would have other parameters than the one whose state was saved.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.trainer.loaded import is_adapter
from vaultlayer_hf.trainer.wrapping import wrapped


@contextmanager
def adapters_kept(trainer: Any) -> Iterator[None]:
    """Have a Trainer's loads leave alone which adapters are active, and which parameters are trained."""
    model = peeled(trainer.model)
    if not is_adapter(model) or len(model.peft_config) < 2:
        yield
        return

    def around(load: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(load)
        def keeping(*args: Any, **kwargs: Any) -> Any:
            active = list(model.active_adapters)
            flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
            found = load(*args, **kwargs)
            model.base_model.set_adapter(active)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(flags[name])
            return found

        return keeping

    with wrapped(trainer, {"_load_from_checkpoint": around}):
        yield
