"""The errors for an optimizer that a checkpoint's state isn't of: of another class, or of other parameters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vaultlayer_hf.errors import OtherRunError

_TO_DO = (
    "train the same parameters, or load the checkpoint's model in the script and name a new vault. Nothing was "
    "trained"
)
_SHOWN = 3
"""Names of parameters that a message holds, at most."""


def other_optimizer(then: str, now: str) -> OtherRunError:
    """Return the error for an optimizer that can't use a checkpoint's state; ``then`` and ``now`` name the two."""
    return OtherRunError(
        f"the checkpoint holds the state of {then}, and this run trains with {now}, which can't use it: start with "
        "the same optimizer, or load the checkpoint's model in the script and name a new vault. Nothing was trained"
    )


def other_groups(said: str, *, added: bool = False) -> OtherRunError:
    """Return the error for an optimizer whose groups have other numbers of parameters than the state's.

    ``said``: how torch puts it; ``added``: the state has all that this optimizer trains, and more behind it.
    """
    if added:
        return OtherRunError(
            f"the checkpoint's optimizer state has groups of parameters that this run's optimizer hasn't ({said}): "
            "they were added once train() had begun (add_param_group), and the checkpoint doesn't say which, as it "
            "does of groups that are added in mid-run from this release on. Give the optimizer these parameters, in "
            "the same groups, ahead of train(), or load the checkpoint's model in the script and name a new vault. "
            "Nothing was trained"
        )
    return OtherRunError(
        f"the checkpoint's optimizer state is that of other parameters than this run trains ({said}): {_TO_DO}"
    )


def other_parameters(then: Sequence[str], now: Sequence[str]) -> OtherRunError:
    """Return the error for an optimizer that trains other parameters than the checkpoint's, by their names."""
    before, here = set(then), set(now)
    gone = [name for name in then if name not in here]
    new = [name for name in now if name not in before]
    words = [f"{shown(names)} {text}" for names, text in ((gone, "only then"), (new, "only now")) if names]
    return OtherRunError(
        "the checkpoint's optimizer state is that of other parameters than this run trains: "
        f"{'; '.join(words) or 'the same ones in another order'}. Each would go on with the state of another one: "
        f"{_TO_DO}"
    )


def check_optimizers(optimizers: Sequence[Any]) -> None:
    """Raise OtherRunError where what an optimizer has loaded is another one's state. Pure.

    ``load_state_dict`` of torch takes the groups as they come. What an optimizer's own groups always hold, such as
    ``momentum``, is lacking then, and its first step would end in a bare KeyError. So this finds another optimizer
    also in a checkpoint that doesn't say what it was made with.
    """
    for outer in optimizers:
        optimizer = getattr(outer, "optimizer", outer)
        groups, defaults = getattr(optimizer, "param_groups", ()), getattr(optimizer, "defaults", {})
        # Loading adds "differentiable" to the defaults of every optimizer, LBFGS's groups never had it.
        always = set(defaults) - {"differentiable"}
        lacking = sorted({name for group in groups for name in always if name not in group})
        if lacking:
            raise other_optimizer(
                f"an optimizer without {', '.join(lacking)} in its groups", type(optimizer).__name__
            )


def shown(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
