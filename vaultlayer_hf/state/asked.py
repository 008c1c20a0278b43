"""What a training is asked for: arguments, optimizer, data, adapters; kept with each checkpoint, compared at a start.

A checkpoint brings its own learning rate, its own optimizer state and its own end, whatever a start asks for; and
neither the Trainer nor torch says anything of it. So what differs is said, with which of the two holds. Refused is what
can't go well: an optimizer that can't use the state, or trains other parameters (torch matches them by their places
alone), an adapter on another base model, and other data on a run that is already over, which would be handed weights of
another run.

One small file in each checkpoint folder, by rank 0: ``vaultlayer_asked.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import OtherRunError
from vaultlayer_hf.state.adapters import Adapters, adapter_differences
from vaultlayer_hf.state.data_digest import Differ, compare_data, other_vocabularies
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.optimizer_errors import other_optimizer, other_parameters, shown
from vaultlayer_hf.state.tensor_digests import is_shard, plain_name

FILE = "vaultlayer_asked.json"
_FORMAT = 1
_CHECKPOINTS = "the checkpoint's holds"
CHECKPOINT_HOLDS = (
    f"{_CHECKPOINTS}; to have the other, begin a fork: Settings(vault='a new one', fork='this one')"
)
STOCK_HOLDS = f"{_CHECKPOINTS}, as with transformers alone"
SAVES_HOLD = (
    f"{STOCK_HOLDS}; Settings(save_every='… steps'), or VAULTLAYER_SAVE_EVERY, saves at other steps, too"
)
START_HOLDS = "this start's holds from here on"
_OVER = (
    "the run is over, so nothing is trained with the one that is asked for; for a run with it name another vault, or "
    "begin a fork: Settings(vault='a new one', fork='this one')"
)
CADENCES = ("save_steps", "eval_steps", "logging_steps")
"""Arguments of which the checkpoint's hold, and which do nothing any more where the run is over."""
_SEEDS = ("seed", "data_seed")
"""What tells one run of a sweep from the next, and nothing else does."""
EVALUATION_DATA = "evaluation data"
"""The argument whose value is a digest, which tells a person nothing."""
VARYING_DATA = "varying"
"""In place of a digest: the training makes its data anew for each pass, so those of two passes aren't compared."""
RANDOM_STATE_HOLDS = "random numbers go on from the checkpoint's state"


@dataclass(frozen=True)
class Asked:
    """What a training is asked for, in plain numbers and text.

    Attributes:
        arguments: by name; those that shape the run.
        optimizer: its class's name, joined by ``+`` where there are several; empty where it isn't known.
        data: a digest of some samples of the training data, with those of what turns them into numbers
            (data_digest.py); empty where they can't be read without a side effect, VARYING_DATA where each pass has
            others.
        adapters: the model's adapters; nothing for a model without any.
        parameters: names of what the optimizer trains, in its order; empty where they aren't known.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    optimizer: str = ""
    data: str = ""
    adapters: Adapters = field(default_factory=Adapters)
    parameters: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint folder. Raises OSError."""
        content = json.dumps(
            {"format": _FORMAT, **vars(self), "adapters": asdict(self.adapters)}, sort_keys=True
        )
        files.write_unflushed(folder / FILE, content.encode())


def read_asked(folder: Path) -> Asked | None:
    """Return what a checkpoint was made with; None where it doesn't say: by stock, or by an earlier version."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        if content.pop("format") != _FORMAT:
            return None
        return Asked(**{**content, "adapters": Adapters(**content.get("adapters", {}))})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def plain_arguments(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of these arguments that are plain numbers, text or None; an enumeration's by its value."""
    values = {name: getattr(value, "value", value) for name, value in found.items()}
    return {
        name: value
        for name, value in values.items()
        if value is None or isinstance(value, (bool, int, float, str))
    }


def optimizer_name(optimizers: Sequence[Any]) -> str:
    """Return the class names of optimizers, without accelerate's wrapper around each."""
    inner = (getattr(one, "optimizer", one) for one in optimizers if one is not None)
    return "+".join(type(one).__name__ for one in inner)


def trained_names(models: Sequence[Any], optimizers: Sequence[Any]) -> list[str]:
    """Return the names of the parameters that optimizers train, in their order, which is all that their state goes by.

    ``?`` is one that no model has. Empty where nothing can be said: an engine trains parameters of its own making.
    """
    try:
        names: dict[int, str] = {}
        for number, model in enumerate(models):
            for name, parameter in peeled(model).named_parameters():
                if is_shard(parameter):
                    return []
                names.setdefault(id(parameter), f"{number}/" * bool(number) + plain_name(name))
        groups = [group for one in optimizers if one is not None for group in one.param_groups]
        found = [names.get(id(parameter), "?") for group in groups for parameter in group["params"]]
    except Exception:  # objects of the script's own
        return []
    return found if set(found) - {"?"} else []


def check_asked(
    then: Asked,
    now: Asked,
    holds: Mapping[str, str],
    *,
    over: bool,
    holds_base: bool = False,
    named_seed: bool = False,
    over_but_for_data: bool = False,
    at: str = "…@STEP",
) -> list[str]:
    """Return in words what differs, and which of the two holds. Pure.

    Args:
        then: what the checkpoint was made with.
        now: what this start asks for.
        holds: by the name of an argument, which of the two holds where they differ; others are this start's.
        over: the checkpoint is the end of its run.
        holds_base: the checkpoint holds the base model's weights, too, beside the adapter's.
        named_seed: a seed is an argument of the run, as a Trainer's; that of a loop may be of whatever was made first.
            A Trainer knows, too, that it takes no more steps where its run is over; a loop may take some.
        over_but_for_data: the run is over, and no more of it is asked for; what the Trainer has left to train comes of
            other numbers of steps in the same epochs.
        at: how a loop names the checkpoint to go on from it though its run is over: the vault with the step.

    Raises OtherRunError where this start can't go on from it.
    """
    if then.optimizer and now.optimizer and then.optimizer != now.optimizer:
        raise other_optimizer(then.optimizer, now.optimizer)
    if then.parameters and now.parameters and then.parameters != now.parameters:
        raise other_parameters(then.parameters, now.parameters)
    known = {then.data, now.data}.isdisjoint(("", VARYING_DATA))
    data = compare_data(then.data, now.data) if known else Differ.NOT
    other = {
        name: (then.arguments[name], value)
        for name, value in now.arguments.items()
        if name in then.arguments and then.arguments[name] != value
    }
    more = "ask the Trainer for more steps" if named_seed else f"name the step that it ended at, {at}"
    if over and data is Differ.WHOLLY:
        raise _other_run_over("on other data", "other-data", f"with other data on purpose, {more}")
    if over_but_for_data and data is not Differ.NOT:
        raise _more_data_over(then.arguments.get("max_steps"), now.arguments.get("max_steps"))
    for name in _SEEDS:
        if over and named_seed and name in other:
            was, value = other[name]
            raise _other_run_over(
                f"with {name}={was}, and this start asks for {name}={value}",
                f"seed-{value}",
                f"from there on purpose, {more}",
            )
    adapters = adapter_differences(then.adapters, now.adapters, holds_base=holds_base)
    words = [
        f"{name}: {_both(name, was, value)}: {_holding(over, named_seed, holds.get(name, START_HOLDS))}"
        for name, (was, value) in other.items()
        if not (over and name in ("max_steps", *CADENCES))  # fewer than were trained: that it is over says so
    ]
    if data is not Differ.NOT:
        words.append(
            "the training data aren't those that the checkpoint was trained on: this start's hold from here on (if "
            "they were meant to be the same, a shuffle or a split without a seed makes others at each start)"
        )
    if known and (names := other_vocabularies(then.data, now.data)):
        words.append(
            f"{shown(names)}: some words have other ids than those that the checkpoint was trained with, so the model "
            "reads other words. Ids made from a set, or in a random order, are others at each start: make them in one "
            "order, such as sorted(words), or keep them in a file. This start's hold from here on"
        )
    return words + adapters


def in_force(then: Asked, now: Asked, holds: Mapping[str, str]) -> Asked:
    """Return what training goes on with: what a start asks for, but where the checkpoint's holds. Pure.

    That is what the next checkpoint was made with, whatever this start has asked for.

    >>> then, now = Asked({"learning_rate": 5e-5}), Asked({"learning_rate": 1e-3})
    >>> in_force(then, now, {"learning_rate": CHECKPOINT_HOLDS}).arguments
    {'learning_rate': 5e-05}
    """
    kept = {
        name: then.arguments[name]
        for name in now.arguments
        if name in then.arguments and holds.get(name, START_HOLDS).startswith(_CHECKPOINTS)
    }
    return replace(now, arguments={**now.arguments, **kept})


def _holding(over: bool, ends: bool, holds: str) -> str:
    """Return which value holds; ``ends``: it is known that a run that is over takes no more steps. A loop's isn't."""
    if over:
        return _OVER if ends else f"the run is over; if this loop takes more steps, {holds}"
    return holds


def _other_run_over(how: str, name: str, go_on: str) -> OtherRunError:
    return OtherRunError(
        f"the run on this vault is over, and it was trained {how}: its weights are no answer to this run. Each run "
        f"needs a vault of its own, such as …/{name}. To go on {go_on}, or begin a fork of this vault: "
        "Settings(vault='a new one', fork='this one')"
    )


def _more_data_over(then: Any, now: Any) -> OtherRunError:
    return OtherRunError(
        "the run on this vault is over, and it was trained on other data. With these the num_train_epochs that are "
        f"asked for come to {now} steps, and not {then} as then: weights that are finished would be given these "
        "further steps, and be no answer to either run. For a run with these data name a vault of its own, such as "
        "…/other-data. To go on with these data on purpose, ask for more num_train_epochs, or begin a fork of this "
        "vault: Settings(vault='a new one', fork='this one'). Nothing was trained"
    )


def _both(name: str, then: Any, now: Any) -> str:
    return "others than then" if name == EVALUATION_DATA else f"{then} in the checkpoint, {now} asked for"
