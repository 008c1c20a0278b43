"""Averages of weights that a loop moves along, and whether they have a ``state_dict``."""

from __future__ import annotations

import re

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import made_by, sources_of
from vaultlayer_hf.run.insert.source import Script

_LIBRARIES = re.compile(r"(?:torch|timm|diffusers|accelerate|torch_ema|ema_pytorch|copy)\b")
"""Whose averages have a ``state_dict``."""
_AVERAGE = re.compile(r"ema|averag|swa", re.IGNORECASE)

_MAKES_AVERAGE = re.compile(r"(?:AveragedModel|ExponentialMovingAverage|ModelEma(?:V\d)?|EMAModel)$")
"""Classes of libraries whose objects are averages, whatever they are called."""


def is_average(script: Script, name: str) -> bool:
    """Tell whether an object is an average of weights, by its name or its class."""
    return bool(_AVERAGE.search(name)) or any(_MAKES_AVERAGE.search(one) for one in made_by(script, name))


def lacks_state(script: Script, name: str) -> bool:
    """Tell whether an object is of a class of the script's own that has no ``state_dict``: its attributes are kept."""
    classes = {one.name.value: one for one in script.all(cst.ClassDef)}
    for made in made_by(script, name):
        kind = classes.get(made)
        if kind is not None and not any(
            script.path(base.value) for base in kind.bases if base.value.value != "object"
        ):
            return not any(one.name.value == "state_dict" for one in script.all(cst.FunctionDef, kind))
    return False


def is_from_elsewhere(script: Script, name: str) -> bool:
    """Tell whether an object is of a class that is imported, and of no library that is known here."""
    values = sources_of(script, name)
    values += [way for one in values if isinstance(one, cst.IfExp) for way in (one.body, one.orelse)]
    made = [script.path(one.func) for one in values if isinstance(one, cst.Call)]
    imported = set(script.imports.values())
    return any(one in imported and not _LIBRARIES.match(one) for one in made)
