"""A Trainer's load of its optimizer and its schedule: where the checkpoint has another one, that is said by name.

torch's own errors name neither, and may come as late as the first step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import OtherRunError
from vaultlayer_hf.state.asked import Asked, optimizer_name, read_asked, trained_names
from vaultlayer_hf.state.object_files import groups_stay
from vaultlayer_hf.state.optimizer_errors import other_groups, other_optimizer
from vaultlayer_hf.state.schedules import loading_schedules
from vaultlayer_hf.trainer.added_groups import AddedGroups
from vaultlayer_hf.trainer.wrapping import wrapped

_OTHER_GROUPS = "loaded state dict "
"""How torch begins its refusal of another optimizer's groups."""


@contextmanager
def load_checked(trainer: Any) -> Iterator[None]:
    """Have a Trainer's load raise OtherRunError for a checkpoint that its optimizer or its schedule can't take.

    Groups that the checkpoint's optimizer was given in mid-run are given to this one ahead of it.
    """

    def around(load: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(load)
        def checking(checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
            groups.begin()
            if checkpoint is None:
                return load(checkpoint, *args, **kwargs)
            folder = Path(checkpoint)
            groups.give(folder)
            with loading_schedules([trainer.optimizer], [trainer.lr_scheduler], folder):
                try:
                    with groups_stay([trainer.optimizer]):
                        return load(checkpoint, *args, **kwargs)
                except ValueError as error:
                    if _OTHER_GROUPS not in str(error):
                        raise
                    raise _other_optimizer(str(error), trainer, folder) from error

        return checking

    groups = AddedGroups(trainer)
    try:
        with wrapped(trainer, {"_load_optimizer_and_scheduler": around}):
            yield
    finally:
        groups.leave()


def _other_optimizer(error: str, trainer: Any, folder: Path) -> OtherRunError:
    asked = read_asked(folder) or Asked()
    then, now = asked.optimizer, optimizer_name([trainer.optimizer])
    if then and then != now:
        return other_optimizer(then, now)
    here = trained_names([trainer.model], [trainer.optimizer])
    return other_groups(
        error, added=0 < len(here) < len(asked.parameters) and here == asked.parameters[: len(here)]
    )
