"""Groups of parameters that a script gives a Trainer's optimizer in mid-run, and what it gives its schedule with them.

A callback that unfreezes layer after layer does so. The save notes which they are, in a file beside the optimizer's,
and a start gives them to its optimizer ahead of the load, which brings their options and their state. A schedule's
``base_lrs`` come with its own state; the functions in ``lr_lambdas`` don't, so these are found again by their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vaultlayer_hf.state.added_functions import (
    added_functions,
    give_functions,
    kept_function,
    lost_function,
    with_functions,
    without_those_there,
)
from vaultlayer_hf.state.added_groups import UNNAMED, give_groups, groups_by_name, refused_groups
from vaultlayer_hf.state.object_files import peeled, read_state, unwrapped_optimizer, write_state
from vaultlayer_hf.state.schedules import unwrapped_schedule
from vaultlayer_hf.state.tensor_digests import plain_name
from vaultlayer_hf.trainer.wrapping import wrapped

FILE = "vaultlayer_added_groups.pt"
_ATTRIBUTE = "_vaultlayer_groups"


class AddedGroups:
    """The groups that came to one training's optimizer on its way.

        groups = AddedGroups(trainer)
        groups.begin()
        groups.give(folder)  # where it goes on from a checkpoint, ahead of the load
        lost = groups.write(folder)  # at each save
        groups.leave()

    Args:
        trainer: whose optimizer and schedule exist when ``begin`` is called.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._optimizer: Any = None
        self._schedule: Any = None
        self._first = 0  # groups that the run began with
        self._lambdas: list[int] = []  # the same of the functions of each schedule that has some
        self._guard = ExitStack()
        setattr(trainer, _ATTRIBUTE, self)

    def begin(self) -> None:
        """Note with what the training begins; at the first call."""
        if self._optimizer is not None:
            return
        self._optimizer, self._schedule = self._trainer.optimizer, self._trainer.lr_scheduler
        self._first = len(getattr(self._optimizer, "param_groups", ()))
        self._lambdas = [len(one.lr_lambdas) for one in with_functions(self._schedule)]

    def write(self, folder: Path) -> str:
        """Write which groups there are besides, if any. Raises OSError.

        Return in words what of them a start can't bring back; empty: nothing.
        """
        groups = list(getattr(self._optimizer, "param_groups", ()))[self._first :]
        # Another optimizer in the place of that of the begin has no groups that were added to it.
        if not groups or self._trainer.optimizer is not self._optimizer:
            return ""
        content = {
            "first": self._first,
            "groups": groups_by_name(groups, self._named()),
            "lambdas": self._added_functions(),
        }
        write_state(folder / FILE, content)
        return _lost(content)

    def give(self, folder: Path) -> None:
        """Give the optimizer and the schedule what they had besides when a checkpoint was saved.

        Raises OtherRunError, ResumeError.
        """
        if not (folder / FILE).is_file():
            return
        saved = read_state(folder / FILE)
        here = len(self._optimizer.param_groups) if self._optimizer is not None else 0
        if here < saved["first"]:
            return  # it is another optimizer, as its load says
        groups = saved["groups"][here - saved["first"] :]
        # What the script by now gives ahead of the training is there already.
        added = without_those_there(self._schedule, saved["lambdas"])
        if lost := _lost({"groups": groups, "lambdas": added}):
            raise refused_groups(folder, lost)
        named = self._named()
        if unknown := [name for group in groups for name in group if name not in named]:
            raise refused_groups(folder, f"this start's model has no {', '.join(unknown[:3])}")
        try:
            give_groups(self._optimizer, groups, named)
            self._give_functions(added)
        except ValueError as error:
            raise refused_groups(folder, f"this start's optimizer can't take them ({error})") from error
        except LookupError as error:
            raise refused_groups(folder, f"the schedule's function isn't in this script: {error}") from error
        if not _lost(saved):
            self._first = saved["first"]
        if groups:
            self._refuse_again(groups, folder)

    def leave(self) -> None:
        """Leave the optimizer as it was."""
        self._guard.close()
        self._trainer.__dict__.pop(_ATTRIBUTE, None)

    def not_carried(self, functions: Sequence[Any]) -> list[Any]:
        """Return those of a schedule's functions that each start makes, or that none can bring back."""
        schedules = [one for one in with_functions(self._schedule) if one.lr_lambdas is functions]
        first = (
            self._lambdas[0]
            if schedules and schedules[0] is unwrapped_schedule(self._schedule)
            else len(functions)
        )
        return [
            *functions[:first],
            *(one for one in functions[first:] if kept_function(one, functions[:first])[1] is None),
        ]

    def _named(self) -> dict[str, Any]:
        return {plain_name(name): one for name, one in peeled(self._trainer.model).named_parameters()}

    def _added_functions(self) -> list[dict[str, Any]]:
        """Return what came to the functions of each schedule, unless the schedule is another one by now."""
        if self._trainer.lr_scheduler is not self._schedule:
            return []
        return added_functions(self._schedule, self._lambdas)

    def _give_functions(self, saved: Sequence[dict[str, Any]]) -> None:
        give_functions(self._schedule, saved)
        for number, kept in enumerate(saved[: len(self._lambdas)]):
            self._lambdas[number] = kept["first"]

    def _refuse_again(self, groups: Sequence[Sequence[str]], folder: Path) -> None:
        """Have a further add_param_group of the same parameters say why it isn't to be: torch's error doesn't."""
        named = self._named()
        brought = {id(named[name]) for group in groups for name in group}

        def around(add: Any) -> Any:
            def add_param_group(group: dict[str, Any]) -> Any:
                try:
                    return add(group)
                except ValueError as error:
                    given = group["params"]
                    if not any(id(one) in brought for one in (given if isinstance(given, list) else [given])):
                        raise
                    raise refused_groups(
                        folder,
                        "the script gives them once more at this start, as on_epoch_begin does, which is called again "
                        "where a start goes on within an epoch: give them only where the optimizer hasn't got them, or "
                        "ahead of train()",
                    ) from error

            return add_param_group

        self._guard.enter_context(wrapped(unwrapped_optimizer(self._optimizer), {"add_param_group": around}))


def groups_of(trainer: Any) -> AddedGroups | None:
    """Return those of the training that a Trainer is in; None where it is loaded by stock alone."""
    found = getattr(trainer, _ATTRIBUTE, None)
    return found if isinstance(found, AddedGroups) else None


def _lost(content: dict[str, Any]) -> str:
    if any(UNNAMED in group for group in content["groups"]):
        return (
            "parameters in them are none of the model's, so no start can find them: make them a part of the model, or "
            "give them to the optimizer ahead of train()"
        )
    return lost_function(content["lambdas"])
