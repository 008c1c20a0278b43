"""What one import of a script's has brought and changed, done beforehand: taken back, until the script comes to it."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType
    from typing import Any

    from vaultlayer_hf.run.inside.startup.vaultlayer_finders import take_out
    from vaultlayer_hf.run.inside.startup.vaultlayer_logs import LoggerChange
    from vaultlayer_hf.run.inside.startup.vaultlayer_looks import looks
    from vaultlayer_hf.run.inside.startup.vaultlayer_moments import Moment

    Registration = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
else:
    from vaultlayer_finders import take_out
    from vaultlayer_looks import looks


class Group:
    """What one import of the script's brought, the imports within it included.

    Attributes:
        name: the module that was asked for.
        environment: variables with which it was imported, without those of `vl run` itself.
        folder: the working directory in which it was imported.
        looks: what else it could ask of its process.
        standard: all of it is of the standard library, to which it is all the same with which variables.
        modules: by name, in sys.modules' order.
        replaced: of those that had been there before, which it has put another in the place of, or taken away (None).
        attributes: of packages that had been there before: package, name, value.
        changed: variables that it set, or deleted (None).
        filters_front, filters_back: what it put before and behind the warnings' filters.
        warned: warnings that it gave: message, category, file, line, module.
        exits: functions that it registered with atexit.
        said: what it wrote to stdout and to stderr.
        logged: records that it gave to loggers.
        loggers: how it has set loggers.
        finders: finders of modules that it put in.
        moments: times at which it was done, as its modules have kept them.
        missing: modules that it has looked for in vain.
        settles: multiprocessing's object for the start method, where it has settled that one.
    """

    def __init__(self, name: str, environment: "dict[str, str]") -> None:
        self.name, self.environment, self.folder = name, environment, os.getcwd()
        self.looks = looks()
        self.standard = False
        self.modules: dict[str, ModuleType] = {}
        self.replaced: dict[str, ModuleType | None] = {}
        self.attributes: list[tuple[ModuleType, str, Any]] = []
        self.changed: dict[str, str | None] = {}
        self.filters_front: list[Any] = []
        self.filters_back: list[Any] = []
        self.warned: list[tuple[Any, type[Warning], str, int, str]] = []
        self.exits: list[Registration] = []
        self.said = b"", b""
        self.logged: list[Any] = []
        self.loggers: list[LoggerChange] = []
        self.finders: list[tuple[int, bool, Any]] = []
        self.moments: list[Moment] = []
        self.missing: set[str] = set()
        self.settles: Any = None


class Modules:
    """Sees what imports do to ``sys.modules``.

    Args:
        known: the names that a script of a cold start finds there.
    """

    def __init__(self, known: "Iterable[str]") -> None:
        self._known = {name: sys.modules[name] for name in known if name in sys.modules}
        self._seen: dict[str, ModuleType | None] = {**self._known}

    def note(self, group: Group) -> None:
        """Have the group know the modules that have come since the last call, and those that were replaced."""
        now, seen = dict(sys.modules), self._seen
        group.modules = {name: module for name, module in now.items() if name not in seen}
        group.replaced = {name: now.get(name) for name, module in seen.items() if now.get(name) is not module}
        seen.update(group.modules)
        seen.update(group.replaced)

    def hide(self, groups: "Sequence[Group]") -> None:
        """Take all of it back."""
        warnings: Any = sys.modules.get("warnings")
        for group in reversed(groups):
            for change in group.loggers:
                change.take_back()
        for group in groups:
            take_out(group.finders)
            for name in group.modules:
                sys.modules.pop(name, None)
        sys.modules.update(self._known)
        for group in groups:
            for package, child, _ in group.attributes:
                package.__dict__.pop(child, None)
        front = sum(len(group.filters_front) for group in groups)
        back = sum(len(group.filters_back) for group in groups)
        if front or back:
            warnings.filters[:] = warnings.filters[front : len(warnings.filters) - back]
            warnings._filters_mutated()
