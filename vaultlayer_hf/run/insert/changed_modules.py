"""Modules outside of the optimizer that a loop changes, and the numbers that a model counts in itself."""

from __future__ import annotations

from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.named_values import NamedValues
from vaultlayer_hf.run.insert.own_classes import counted_by_module, is_kind
from vaultlayer_hf.run.insert.walk import Walk


def changed_modules(named: NamedValues, walk: Walk, before: set[str]) -> list[str]:
    """Return the modules outside of the optimizer whose weights a loop changes: a target, a teacher that follows.

    Those that it gives to a function of a library which, by its name, changes them, included. ``walk``: of the loop;
    ``before``: names that are set before it.
    """
    found = [on for on, method, _ in walk.calls if method == "load_state_dict" and on in walk.modules]
    found += [name for name in walk.changed if name in walk.modules]
    found += [name for name in walk.given if named.is_module(name) or named.acts_as_module(name)]
    return [
        name
        for name in dict.fromkeys(found)
        if name.partition(".")[0] in before
        and name.partition(".")[0] not in named.script.imports
        and not any(one in named.known for one in prefixes(name))
    ]


def counted_by_modules(named: NamedValues, walk: Walk) -> list[str]:
    """Return the numbers that a model counts, ``model.calls``. Raises UnclearError for those of a part of it."""
    script, models = named.script, named.names.models
    found: list[str] = []
    for path, kind in named.classes.items():
        if "." in path or not is_kind(script, kind, "Module", named.classes):
            continue
        called = [method for on, method, _ in walk.calls if on in models and named.made(on) == [path]]
        names = [name for name in models if named.made(name) == [path]]
        for attribute, line in counted_by_module(kind, called, containers=bool(names)).items():
            if not names and kind[0] is not script:
                continue  # it may not be used here at all
            if not names:
                raise UnclearError(
                    f"line {line} changes self.{attribute} in the forward() of {path}, and no state_dict() holds it: "
                    "make it a persistent buffer (register_buffer)"
                )
            found += [f"{name}.{attribute}" for name in names]
    return found


def refuse_counting_ahead(named: NamedValues, again: Walk) -> None:
    """Raise UnclearError for a method of a model that counts, ahead of an epoch's batches; ``again``: its walk."""
    for on, method, call in again.calls:
        kinds = [
            named.classes[one] for one in named.made(on) if on in named.names.models and one in named.classes
        ]
        if method != "__call__" and any(counted_by_module(kind, [method], forward=False) for kind in kinds):
            raise UnclearError(
                f"line {named.script.line(call)} changes {on} ahead of an epoch's batches, where a resume within the "
                "epoch would repeat it: move it after them"
            )


def prefixes(name: str) -> list[str]:
    """Return ``a.b.c``, ``a.b`` and ``a``."""
    parts = name.split(".")
    return [".".join(parts[:number]) for number in range(len(parts), 0, -1)]
