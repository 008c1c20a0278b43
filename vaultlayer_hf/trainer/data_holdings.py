"""What data sets and a collator of the script's own keep beside numbers and random generators: it is only said.

But where a resume fetches the batches once more that were trained on, from the first one on, what such a fetch leaves
is there again: rows that wait to be packed, say. So that isn't spoken of, if nothing else of the script changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vaultlayer_hf.state.data.inner import data_sets
from vaultlayer_hf.state.functions import functions_of, reached
from vaultlayer_hf.state.generator_states import GENERATORS
from vaultlayer_hf.state.object_kinds import is_of_script
from vaultlayer_hf.state.places import FunctionVariables
from vaultlayer_hf.trainer.own_places import Held

_WITH_THE_PLACE = (int, float, *GENERATORS)
"""What comes back with the place in the data."""


def held_by_data(dataset: Any, trainer: Any, held: Sequence[Held]) -> dict[str, dict[str, Any]]:
    """Return the values by the names of what has them, and of their attributes or variables.

    Args:
        dataset: of the training; those within it are looked at, too.
        trainer: whose collator counts; None where it isn't known.
        held: what is carried.
    """
    carried = {id(value) for one in held for value in one.values.values()}
    things = [*data_sets(dataset), getattr(trainer, "data_collator", None)]
    found: dict[str, dict[str, Any]] = {}
    own = [
        (type(one).__name__, vars(one))
        for one in things
        if hasattr(one, "__dict__") and is_of_script(type(one))
    ]
    read = [
        (name, place.values()) for name, place in reached(one for one in things if one is not None).items()
    ]
    for owner, values in (*own, *read):
        chosen = {
            name: value
            for name, value in values.items()
            if not isinstance(value, _WITH_THE_PLACE) and id(value) not in carried
        }
        while owner in found:
            owner += "'"
        found[owner] = chosen
    return found


def kept_by_fetching(dataset: Any, trainer: Any, held: Sequence[Held]) -> set[str]:
    """Return the paths of those values that no function of the script's names outside data sets and collator.

    Nor a method of these, through which it could change them. As ``held_by_data``, which has the arguments.
    """
    places = (one.place for one in held)
    named = frozenset().union(*(one.names() for one in places if isinstance(one, FunctionVariables)))
    things = [*data_sets(dataset), getattr(trainer, "data_collator", None)]
    methods = {function.__name__ for one in things if one is not None for function in functions_of(one)}
    if any(name in named and not name.startswith("__") for name in methods):
        return set()
    found = held_by_data(dataset, trainer, held)
    return {f"{owner}.{name}" for owner, values in found.items() for name in values if name not in named}
