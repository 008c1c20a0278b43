"""Finders of modules that imports put into ``sys.meta_path`` or ``sys.path_hooks``: taken out, and put in again."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Finders:
    """Those that are there before an import."""

    def __init__(self) -> None:
        self._before = [list(place) for place in _places()]

    def new(self) -> "list[tuple[int, bool, Any]]":
        """Return which have come: number of the place, whether in front of those that were there, and the finder."""
        found: list[tuple[int, bool, Any]] = []
        for number, (place, before) in enumerate(zip(_places(), self._before, strict=True)):
            known = set(map(id, before))
            first = next((at for at, one in enumerate(place) if id(one) in known), 0)
            new = [(number, at < first, one) for at, one in enumerate(place) if id(one) not in known]
            found += [one for one in reversed(new) if one[1]] + [one for one in new if not one[1]]
        return found


def take_out(found: "list[tuple[int, bool, Any]]") -> None:
    """Take finders out that were put in."""
    for number, _, finder in found:
        place = _places()[number]
        place[:] = [one for one in place if one is not finder]


def put_in(found: "list[tuple[int, bool, Any]]") -> None:
    """Put them in again, where they were put."""
    for number, in_front, finder in found:
        place = _places()[number]
        place.insert(0 if in_front else len(place), finder)


def _places() -> "tuple[list[Any], list[Any]]":
    return sys.meta_path, sys.path_hooks
