"""Iterators that outlive a pass through the data: no checkpoint has their place, unless a Stream stands for them.

drawn_loaders.py says for which a Stream can stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import function_of, receiver, sources_of
from vaultlayer_hf.run.insert.draws import in_use
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.pieces import innermost
from vaultlayer_hf.run.insert.random_calls import is_draw
from vaultlayer_hf.run.insert.source import Script, dotted

_OPENS = (
    "iter",
    "zip",
    "map",
    "filter",
    "enumerate",
    "itertools.islice",
    "itertools.chain",
    "itertools.cycle",
)


@dataclass
class DrawnLoader:
    """A loader that a loop draws from with next().

    Attributes:
        stream: what the Stream that stands for it is to be called.
        loader: the code of the loader.
        opens: the calls that make the iterator; of an endless one the only one.
        first: the statement ahead of the loop that makes it first.
        endless: whether it begins anew by itself.
        holder: the object of the script's own that holds it and gives its batches; ``""`` for none.
    """

    stream: str
    loader: str
    opens: list[Any]
    first: Any
    endless: bool
    holder: str = ""


def _refuse_counters(script: Script, call: Any) -> None:
    """Raise UnclearError for what next() asks for that are no batches: numbers, or what the script itself yields."""
    functions = {one.name.value: one for one in script.all(cst.FunctionDef)}
    for source in sources_of(script, dotted(call.args[0].value)):
        if not isinstance(source, cst.Call):
            continue
        if script.path(source.func) == "itertools.count":
            raise UnclearError(
                f"line {script.line(call)} counts with itertools.count, whose place isn't in a checkpoint: count in a "
                "variable"
            )
        function = functions.get(dotted(source.func))
        if function is not None and script.all(cst.Yield, function) and not source.args:
            raise UnclearError(
                f"line {script.line(call)} draws with next() from {function.name.value}(), and where that is isn't in "
                "a checkpoint"
            )


def refuse_streams(script: Script, loop: Loop, opens: Sequence[Any]) -> None:
    """Raise UnclearError for data whose position neither the Checkpointer nor the random numbers tell.

    ``opens``: the calls that open iterators whose place is known.
    """
    used = in_use(script, loop)
    calls = list(dict.fromkeys(call for part in used for call in script.all(cst.Call, part)))
    known = {id(one) for one in opens}
    for call in calls:
        method = call.func.attr.value if isinstance(call.func, cst.Attribute) else ""
        if method in ("next", "__next__") and any(
            is_iterator(script, one) for one in sources_of(script, receiver(call))
        ):
            raise UnclearError(
                f"line {script.line(call)} draws its batches with {method}(), so their position isn't seen: go through "
                "ckpt.steps(dataloader, total=…) instead"
            )
        if method == "recv":
            raise UnclearError(
                f"line {script.line(call)} waits for what another process sends, whose state isn't in a checkpoint"
            )
        if dotted(call.func) == "next" and call.args and not opened_there(script, call.args[0].value):
            if any(id(one) in known for one in sources_of(script, dotted(call.args[0].value))):
                continue
            _refuse_counters(script, call)
            raise UnclearError(
                f"line {script.line(call)} draws its batches with next(), so their position isn't seen: go through "
                "ckpt.steps(dataloader, total=…) instead"
            )
    headed = [one.iter for part in used for one in script.all(cst.For, part)]
    for head in dict.fromkeys(headed):
        for call in script.all(cst.Call, head):
            _refuse_rounds(script, call)
        for name in dict.fromkeys(dotted(one) for one in script.all(cst.Name, head)):
            _refuse_opened_before(script, loop, head, name)


def _refuse_rounds(script: Script, call: Any) -> None:
    """Refuse what goes round the data by itself."""
    if script.path(call.func) == "itertools.cycle":
        raise UnclearError(
            f"line {script.line(call)} goes round the data with itertools.cycle, which keeps the batches of its first "
            "round in memory, where a checkpoint doesn't find them"
        )
    function = generator_of(script, call)
    if function is not None and _draws_on_its_way(script, function):
        raise UnclearError(
            f"the data in line {script.line(call)} come from {function.name.value}(), which goes round them by itself, "
            "and in which order it is then isn't in a checkpoint: have it go round once, and go through it in epochs"
        )


def _refuse_opened_before(script: Script, loop: Loop, head: Any, name: str) -> None:
    """Refuse an iterator that a pass goes on with where the one before has left it."""
    for source in sources_of(script, name):
        if not is_iterator(script, source):
            continue
        for call in script.all(cst.Call, source):
            _refuse_rounds(script, call)
        inside = any(one is loop.top for one in script.around(source))
        once = loop.outer is None and loop.inner.iter is head if isinstance(loop.inner, cst.For) else False
        if not inside and not once and function_of(script, source) is function_of(script, head):
            raise UnclearError(
                f"line {script.line(head)} goes on with {name}, which line {script.line(source)} has opened before the "
                "loop: where it is in its data isn't in a checkpoint"
            )


def is_iterator(script: Script, node: Any) -> bool:
    """Tell whether an expression makes what can be gone through only once."""
    if isinstance(node, cst.GeneratorExp):
        return True
    node = innermost(node) if isinstance(node, cst.Call) and dotted(node.func) != "enumerate" else node
    return isinstance(node, cst.Call) and (
        script.path(node.func) in _OPENS or generator_of(script, node) is not None
    )


def generator_of(script: Script, call: Any) -> Any:
    """Return the generator function of the script's own that a call calls; None for any other."""
    name = dotted(call.func)
    for one in script.all(cst.FunctionDef):
        if one.name.value == name and script.all(cst.Yield, one.body, nested=False):
            return one
    return None


def _draws_on_its_way(script: Script, function: Any) -> bool:
    """Tell whether a generator opens data, or draws, within a loop of its own: at a time that only it knows."""

    def loops_in(node: Any, nested: bool = True) -> list[Any]:
        return [*script.all(cst.For, node, nested), *script.all(cst.While, node, nested)]

    for outer in loops_in(function.body, nested=False):
        opened = [one.iter for one in script.all(cst.For, outer.body)]
        opened += [one.item for one in script.all(cst.From, outer.body)]
        if not all(isinstance(one, cst.Call) and dotted(one.func) == "range" for one in opened):
            return True
        rounds = isinstance(outer, cst.While) or loops_in(outer.body)
        if rounds and any(is_draw(script.path(call.func)) for call in script.all(cst.Call, outer.body)):
            return True
    return False


def opened_there(script: Script, node: Any) -> bool:
    """Tell whether an iterator is made where it is used, as ``next(iter(loader))`` does it: it goes nowhere."""
    return (
        isinstance(node, cst.Call)
        and dotted(node.func) == "iter"
        and bool(node.args)
        and not any(is_iterator(script, one) for one in sources_of(script, dotted(node.args[0].value)))
    )
