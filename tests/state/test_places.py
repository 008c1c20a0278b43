"""Values of a script's own, put back where they are held by a name."""

from __future__ import annotations

import functools
from types import SimpleNamespace

from vaultlayer_hf.state.places import FunctionVariables, Members


def test_what_a_partial_has_bound_is_put_back_into_it() -> None:
    """By its place or by its name, in the very partial that others hold: it is called with that, and nothing more."""
    bound = functools.partial(round, 1.234567, ndigits=1)
    place = Members(bound)
    place.put("0", 7.654321)
    place.put("ndigits", 3)
    assert bound() == 7.654
    assert place.values() == {"0": 7.654321, "ndigits": 3}


def test_a_default_is_put_back_into_its_argument_alone() -> None:
    """Also where the function uses its name for an attribute: no global of that name comes to be."""

    def note(value: int, best: list[int] = []) -> None:  # noqa: B006  what it holds is what is tested
        SimpleNamespace().best = (value, best)

    FunctionVariables(note).put("best", [1])
    assert note.__defaults__ == ([1],)
    assert "best" not in globals()
