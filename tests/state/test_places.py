"""Values of a script's own, put back where they are held by a name."""

from __future__ import annotations

import functools

from vaultlayer_hf.state.places import Members


def test_what_a_partial_has_bound_is_put_back_into_it() -> None:
    """By its place or by its name, in the very partial that others hold: it is called with that, and nothing more."""
    bound = functools.partial(round, 1.234567, ndigits=1)
    place = Members(bound)
    place.put("0", 7.654321)
    place.put("ndigits", 3)
    assert bound() == 7.654
    assert place.values() == {"0": 7.654321, "ndigits": 3}
