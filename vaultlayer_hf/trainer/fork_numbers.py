"""A fork trains with this script's own learning rate and schedule: taken before the Trainer loads a checkpoint's."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.own_numbers import OwnNumbers, put_numbers, take_numbers

_LOAD = "_load_optimizer_and_scheduler"


class ForkNumbers:
    """The numbers of a Trainer's optimizer and schedule as its arguments make them, for one start that is a fork.

    Args:
        trainer: that is about to train. Its load of the optimizer is wrapped, once, on this object alone.
    """

    def __init__(self, trainer: Any) -> None:
        self._own: OwnNumbers | None = None
        self._before = vars(trainer).get(_LOAD)
        load = getattr(trainer, _LOAD)

        def take_and_load(*args: Any, **kwargs: Any) -> Any:
            self._own = take_numbers([trainer.optimizer], [trainer.lr_scheduler])
            if self._before is None:
                vars(trainer).pop(_LOAD, None)
            else:
                setattr(trainer, _LOAD, self._before)
            return load(*args, **kwargs)

        setattr(trainer, _LOAD, take_and_load)

    @classmethod
    def of(cls, session: Session, trainer: Any) -> ForkNumbers | None:
        """Return those of a start that is a fork; None for any other, and where the Trainer's can't be had.

        DeepSpeed loads its optimizer elsewhere. Where only a callback is there, the Trainer isn't known.
        """
        if session.forked is None:
            return None
        if trainer is None or not hasattr(trainer, _LOAD) or getattr(trainer, "is_deepspeed_enabled", False):
            session.warn_all(
                EventKind.NOTICE,
                "a fork: the checkpoint's learning rate, weight decay, betas and schedule hold",
            )
            return None
        return cls(trainer)

    def put(self, session: Session, optimizer: Any, scheduler: Any) -> None:
        """Put them back behind the load, and say which of two holds. All ranks."""
        if self._own is not None:
            session.warn_all(EventKind.NOTICE, put_numbers(self._own, [optimizer], [scheduler]))
