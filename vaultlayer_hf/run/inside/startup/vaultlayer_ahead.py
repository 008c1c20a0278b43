"""What a library makes when it is first needed, and the same in each process, made beforehand in a spare interpreter.

transformers 5 has a table of the names of all its architectures' weights: 900 regular expressions, 0.1 s, for which the
first save or load of a model waits in each process (trainer/first_save.py has it made beside the training where there
is no spare). Here the table stays out of sight, in the place of the function that makes it: it is there when that is
first called, unless what the function makes it from has been changed by then.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MODULE = "transformers.conversion_mapping"
_BUILD, _TABLE = "_build_checkpoint_conversion_mapping", "_checkpoint_conversion_mapping_cache"


class Tables:
    """Makes what it knows of, once its module is there."""

    def __init__(self) -> None:
        self._made = False

    def make(self) -> None:
        """Call it behind each import. Raises what a library of another version does."""
        module = sys.modules.get(_MODULE)
        if module is None or self._made:
            return
        self._made = True
        build: Any = getattr(module, _BUILD, None)
        if build is not None and getattr(module, _TABLE, None) is None:
            setattr(module, _BUILD, _made_ahead(build))


def _made_ahead(build: "Any") -> "Any":
    """Call a function without arguments, and return one like it, which gives that result at its first call."""
    used, found = _used(build), [build()]

    def made() -> "Any":
        if _used(build) == used:
            try:
                return found.pop()
            except IndexError:  # it was given before
                pass
        return build()

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(made, name, getattr(build, name))
    return made


def _used(build: "Any") -> "dict[str, Any]":
    """Return the globals that a function names: of a dict, what it holds now."""
    there = build.__globals__
    values = {name: there[name] for name in build.__code__.co_names if name in there}
    return {name: dict(value) if type(value) is dict else value for name, value in values.items()}
