"""A Trainer's load of its optimizer: the schedule still finds in the optimizer's groups what it reads there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaultlayer_hf.state.schedules import GroupsRead
from vaultlayer_hf.trainer.wrapping import wrapped


@contextmanager
def schedule_checked(trainer: Any) -> Iterator[None]:
    """Have a Trainer's load raise OtherRunError for a checkpoint with which its schedule can't take a step."""

    def around(load: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(load)
        def checking(checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
            read = GroupsRead([trainer.optimizer], [trainer.lr_scheduler])
            found = load(checkpoint, *args, **kwargs)
            if checkpoint is not None:
                read.check(Path(checkpoint))
            return found

        return checking

    with wrapped(trainer, {"_load_optimizer_and_scheduler": around}):
        yield
