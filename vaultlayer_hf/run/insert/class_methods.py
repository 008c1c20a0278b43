"""Which method a call on ``self`` leads to, where several classes of a script have one of its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.source import Script, dotted


class MethodsOfClasses:
    """The classes of a script, each with its methods and the classes that it is made of."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._classes = {one.name.value: one for one in script.all(cst.ClassDef)}
        self._methods = {
            name: {
                one.name.value: one
                for one in script.all(cst.FunctionDef, node)
                if script.parent(script.parent(one)) is node
            }
            for name, node in self._classes.items()
        }
        self._made = {dotted(call.func) for call in script.all(cst.Call)}

    def called(self, call: Any, method: str, within: Sequence[Any]) -> Any:
        """Return the method of this name of the object whose method the call is in; None where that isn't seen.

        ``within``: the functions in which the call was met. Its object may be of a class made of that class, whose
        own method goes ahead: one that the script makes objects of.
        """
        home = (
            self._home(call)
            or self._home(call.func)
            or next(filter(None, map(self._home, reversed(within))), "")
        )
        if not home:
            return None
        made = [name for name in self._classes if name in self._made and home in self._line(name)]
        found = [self._of(name, method) for name in made or [home]]
        return next((one for one in found if one is not None), None) or self._of(home, method)

    def _home(self, node: Any) -> str:
        return next(
            (one.name.value for one in self._script.around(node) if isinstance(one, cst.ClassDef)), ""
        )

    def _of(self, name: str, method: str) -> Any:
        """Return the method of a class, its own or the nearest one that it inherits."""
        own = (self._methods[one].get(method) for one in self._line(name))
        return next(filter(None, own), None)

    def _line(self, name: str) -> list[str]:
        """Return a class and those that it is made of, the nearest first."""
        found = [name]
        for one in found:
            bases = [dotted(base.value) for base in self._classes[one].bases]
            found += [base for base in bases if base in self._classes and base not in found]
        return found
