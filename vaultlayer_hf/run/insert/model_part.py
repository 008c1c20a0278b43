"""Which part of ``a.b.c``, whose parameters an optimizer trains, is the module that is saved."""

from __future__ import annotations

import re

from vaultlayer_hf.run.insert.calls import assignments, made_by
from vaultlayer_hf.run.insert.own_classes import classes_of
from vaultlayer_hf.run.insert.source import Script, dotted

_PIPELINE = re.compile(r"Pipeline(?:\.from_\w+)?$")
"""What makes a pipeline of diffusers, which holds models and is none."""


def model_part(script: Script, name: str) -> str:
    """Return the longest part of ``a.b.c`` that the script assigns: what holds the rest, with its buffers."""
    parts = name.split(".")
    if parts[0] == "self":
        for number in range(len(parts), 1, -1):
            if _assigned(script, ".".join(parts[:number])):
                return ".".join(parts[:number])
        return name
    return ".".join(parts[:2]) if len(parts) > 1 and _is_no_module(script, parts[0]) else parts[0]


def _assigned(script: Script, name: str) -> bool:
    return any(dotted(target) == name for node in assignments(script) for target in node.targets)


def _is_no_module(script: Script, name: str) -> bool:
    """Tell whether an object that holds the model is surely none: a pipeline, or of a class without bases."""
    classes = classes_of(script)
    for path in made_by(script, name):
        if path in classes and all(dotted(base.value) == "object" for base in classes[path][1].bases):
            return True
        if _PIPELINE.search(path):
            return True
    return False
