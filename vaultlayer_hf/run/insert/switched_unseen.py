"""Attributes that a loop switches on its way, of objects whose class the script doesn't show: a library's, say.

train_set = ImageFolder(path)
...
if epoch == 90:
    train_set.mosaic = False  # whoever reads it isn't seen; a start in a later epoch wouldn't set it

Plain values come back by their name. Anything else, a transform for instance, may be what no checkpoint has.
"""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import call_that_makes, function_of, sources_of
from vaultlayer_hf.run.insert.changed_members import values_of
from vaultlayer_hf.run.insert.changed_modules import prefixes
from vaultlayer_hf.run.insert.named_values import LOGS, NamedValues
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk

_BASES = re.compile(r"(?:^|\.)(?:object|ABC|Generic|Dataset|IterableDataset|Sampler|Module)$")
"""Classes that read no attribute which is hung on those that are made of them."""
_IN_STATE = ("data", "grad", "requires_grad", "weight", "bias")
"""Attributes of tensors and layers, which a checkpoint of a model has."""
_OPTIONS = re.compile(r"parse_(?:known_)?args|Namespace\(|EasyDict\(|OmegaConf|namedtuple")
"""What makes options. These hold all kinds of things that only the script reads, paths for instance."""
_PLAIN_CALLS = ("int", "float", "bool", "str", "round", "min", "max", "len", "abs", "sum")


def kinds_of(named: NamedValues, owner: str) -> list[Any]:
    """Return the classes of what a name may hold, each as ``classes_of`` has it; None for one that isn't seen."""
    script = named.script
    if owner in named.classes:
        return [named.classes[owner]]
    if owner == "self":
        return [(script, one) for one in script.around(named.loop.top) if isinstance(one, cst.ClassDef)]
    return [kind for value in values_of(named, owner) for kind in _made(named, value)]


def _made(named: NamedValues, value: Any) -> list[Any]:
    """Return the classes of a value: of a class's call, or of a call of a function that returns one."""
    script, call = named.script, call_that_makes(value)
    path = script.path(call.func) if isinstance(call, cst.Call) else ""
    if path in named.classes:
        return [named.classes[path]]
    functions = [one for one in script.all(cst.FunctionDef) if path and one.name.value == path]
    found: list[Any] = []
    for one in [back for function in functions for back in script.all(cst.Return, function.body)]:
        name = dotted(one.value) if one.value is not None else ""
        local = [each for each in sources_of(script, name) if function_of(script, each) in functions]
        for each in local if name else [one.value]:
            made = call_that_makes(each)
            found.append(named.classes.get(script.path(made.func)) if isinstance(made, cst.Call) else None)
    return found or [None]


def is_unseen(named: NamedValues, walk: Walk, name: str) -> bool:
    """Tell whether what reads an attribute may be out of the script's sight; ``walk``: of the outermost loop."""
    owner, _, attribute = name.rpartition(".")
    names, made = named.names, [named.script.code(one) for one in named.sources(owner)]
    in_state = {names.accelerator, names.optimizer, names.scheduler, *named.loop.optimizers}
    if attribute in _IN_STATE or owner in in_state or any(one in walk.written for one in prefixes(owner)):
        return False
    options = any(map(_OPTIONS.search, made))
    if (options and not is_plain(named, name)) or any(map(LOGS.search, named.made(owner))):
        return False
    kinds = kinds_of(named, owner)
    return not kinds or any(kind is None or _hands_on(named, kind) for kind in kinds)


def _hands_on(named: NamedValues, kind: Any) -> bool:
    """Tell whether a class is built on one that isn't seen and may read attributes of its objects."""
    home, node = kind
    for base in node.bases:
        name = home.path(base.value)
        if dotted(base.value) in named.classes:
            if _hands_on(named, named.classes[dotted(base.value)]):
                return True
        elif not _BASES.search(name):
            return True
    return False


def is_plain(named: NamedValues, name: str) -> bool:
    """Tell whether an attribute is only given plain values: numbers, texts, flags."""
    return all(_is_plain(named, one, 3) for one in named.sources(name)) and bool(named.sources(name))


def _is_plain(named: NamedValues, value: Any, depth: int) -> bool:
    """Tell whether an expression gives a plain value."""
    script: Script = named.script
    if isinstance(value, (cst.Integer, cst.Float, cst.SimpleString, cst.FormattedString, cst.Comparison)):
        return True
    if isinstance(value, (cst.BinaryOperation, cst.BooleanOperation)):
        return _is_plain(named, value.left, depth) and _is_plain(named, value.right, depth)
    if isinstance(value, cst.UnaryOperation):
        return _is_plain(named, value.expression, depth)
    if isinstance(value, cst.IfExp):
        return _is_plain(named, value.body, depth) and _is_plain(named, value.orelse, depth)
    if isinstance(value, (cst.Tuple, cst.List)):
        return all(_is_plain(named, one.value, depth) for one in value.elements)
    if isinstance(value, cst.Dict):
        return all(
            isinstance(one, cst.DictElement) and _is_plain(named, one.value, depth) for one in value.elements
        )
    if isinstance(value, cst.Subscript):  # sizes[epoch]
        return bool(dotted(value.value)) and _is_plain(named, value.value, depth)
    if isinstance(value, cst.Call):
        read = isinstance(value.func, cst.Attribute) and value.func.attr.value == "item"  # loss.item()
        return read or script.path(value.func) in _PLAIN_CALLS
    name = dotted(value)
    if name in ("True", "False", "None"):
        return True
    if _counts(named, name):
        return True
    sources = named.sources(name) if name and depth else []
    return bool(sources) and all(_is_plain(named, one, depth - 1) for one in sources)


def _counts(named: NamedValues, name: str) -> bool:
    """Tell whether a name is the number of a round of a loop over ``range()``."""
    for one in (named.loop.top, named.loop.inner):
        over = one.iter if isinstance(one, cst.For) else None
        if (
            isinstance(over, cst.Call)
            and dotted(over.func) in ("range", "trange")
            and dotted(one.target) == name
        ):
            return True
    return False
