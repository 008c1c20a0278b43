"""A call of ``train()``, of which one argument is read and may be replaced. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


class Call:
    """A call of a Trainer's train(), whatever signature a subclass has given it.

    Arguments hidden behind ``*args`` are taken to stand where transformers has them.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._function, self._args, self._kwargs = function, list(args), dict(kwargs)
        self._parameters = inspect.signature(function).parameters

    def _place(self, name: str, usual: int) -> int | None:
        """Return the position at which an argument was given; None where it wasn't given by position."""
        parameter = self._parameters.get(name)
        if parameter is not None:
            usual = list(self._parameters).index(name)
            if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
                return None
        elif not any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in self._parameters.values()):
            return None
        return usual if usual < len(self._args) else None

    def get(self, name: str, usual: int) -> Any:
        """Return an argument, None where it wasn't given; ``usual`` is its position in transformers."""
        place = self._place(name, usual)
        return self._kwargs.get(name) if place is None else self._args[place]

    def set(self, name: str, usual: int, value: Any) -> None:
        """Give an argument another value."""
        place = self._place(name, usual)
        if place is None:
            self._kwargs[name] = value
        else:
            self._args[place] = value

    def takes(self, name: str) -> bool:
        """Tell whether the function can be given an argument."""
        kinds = {one.kind for one in self._parameters.values()}
        anything = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
        return name in self._parameters or bool(kinds & anything)

    def do(self) -> Any:
        """Make the call."""
        return self._function(*self._args, **self._kwargs)
