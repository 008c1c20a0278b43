"""Methods of one object, or functions of a module, wrapped for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def wrapped(
    owner: Any, wraps: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]]
) -> Iterator[None]:
    """Have attributes of an object or a module wrapped for a while; those that it doesn't have are left out."""
    own = owner.__dict__
    before = {name: own.get(name) for name in wraps if hasattr(owner, name)}
    for name in before:
        own[name] = wraps[name](getattr(owner, name))
    try:
        yield
    finally:
        for name, method in before.items():
            if method is None:
                own.pop(name, None)
            else:
                own[name] = method
