"""What the names of a loop hold: a number, a list, a module, a clock; and whether a call of a method changes it.

That decides whether a name comes back, and where.
"""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import (
    BARS,
    CLOCK,
    assignments,
    call_that_makes,
    function_of,
    method_calls,
    receiver,
    sources_of,
)
from vaultlayer_hf.run.insert.frameworks import ENVIRONMENT
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_names import Names
from vaultlayer_hf.run.insert.own_classes import (
    COUNTS,
    GROWS,
    called_unasked,
    changes_itself,
    classes_of,
    containers_of,
    holds_iterator,
    is_kind,
)
from vaultlayer_hf.run.insert.own_functions import OF_MODULES
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk

GENERATORS = (
    "torch.Generator",
    "numpy.random.default_rng",
    "numpy.random.RandomState",
    "random.Random",
)
"""What makes a random generator of its own."""
_ARRAYS = re.compile(r"^(?:torch|numpy)\.[a-z_]+$|(?:^|\.)(?:deepcopy|clone|detach|copy)$")
"""What makes a tensor or an array."""
CONTAINERS = (
    "list",
    "dict",
    "set",
    "collections.deque",
    "collections.defaultdict",
    "collections.Counter",
    "collections.OrderedDict",
)
_GIVES_BATCHES = re.compile(r"next_batch|get_batch|next_\w+|read_batch|__next__|fetch_batch|get_next_batch")
_MOVES = ("to", "cpu", "cuda")
_DEVICES = re.compile(r"^torch\.(?:device|\w+\.current_(?:device|accelerator))$")
LOGS = re.compile(
    r"tqdm|trange|SummaryWriter|wandb|logg|writer|rich\.|Progress|open$|argparse|neptune|mlflow|time\."
)
_COUNTS_ROWS = re.compile(r"BatchNorm|InstanceNorm|track_running_stats")
"""Layers of torch whose buffers each batch changes."""


def _names_of_functions(script: Script) -> set[str]:
    """Return the names of functions; a method's is an attribute, and a variable may be called the same."""
    functions = script.all(cst.FunctionDef)
    return {
        one.name.value for one in functions if not isinstance(script.parent(script.parent(one)), cst.ClassDef)
    }


class NamedValues:
    """What the names of a loop hold.

    Args:
        script, loop, names: in which they are looked at.
        known: objects that are taken care of.
    """

    def __init__(self, script: Script, loop: Loop, names: Names, known: set[str]) -> None:
        self.script, self.loop, self.names = script, loop, names
        self.known = known
        self.classes = classes_of(script)

    def sources(self, name: str) -> list[Any]:
        """Return what a name is assigned: in the loop's functions, where they assign it; another's may be another."""
        found = sources_of(self.script, name)
        for at in (self.loop.top, self.loop.inner):
            home = function_of(self.script, at)
            own = [one for one in found if function_of(self.script, one) is home]
            if own and "." not in name:
                return own
        return found

    def made(self, name: str) -> list[str]:
        """Return the paths of the calls by which a name is made."""
        made = [call_that_makes(one) for one in self.sources(name)]
        return [self.script.path(one.func) for one in made if isinstance(one, cst.Call)]

    def is_variable(self, name: str) -> bool:
        """Tell whether a name that the loop assigns holds something that can go on: no clock, log or iterator."""
        first = name.partition(".")[0]
        if name in self.known or first in self.script.imports or name in self.classes:
            return False
        if name in _names_of_functions(self.script):
            return False
        sources, made = self.sources(name), self.made(name)
        clocks = [one for one in made if CLOCK.search(one)]
        if sources and len(clocks) == len(sources):
            return False
        if made and all(_DEVICES.search(one) for one in made):
            return False  # another machine has others
        if self._only_moves(name):
            return False
        if self._is_log(name) or any(ENVIRONMENT.search(one) for one in made):
            return False
        return "iter" not in made and not any(one in ("enumerate", "zip", "range", "map") for one in made)

    def _is_log(self, name: str) -> bool:
        """Tell whether a name is that of a log, a bar or the like; what is made of its own value is none, but a bar."""
        script = self.script
        for one in map(call_that_makes, self.sources(name)):
            if isinstance(one, cst.Call) and LOGS.search(script.path(one.func)):
                given = {
                    dotted(each) for part in one.args for each in script.all((cst.Name, cst.Attribute), part)
                }
                if name not in given or BARS.search(script.path(one.func)):
                    return True
        return False

    def _only_moves(self, name: str) -> bool:
        """Tell whether the loop assigns a name only what it holds, on another device: ``vae = vae.to("cpu")``."""
        script, moves = self.script, {f"{name}.{way}" for way in _MOVES}
        others = [one.target for kind in (cst.AugAssign, cst.For) for one in script.all(kind, self.loop.top)]
        others += [
            item for kind in (cst.Global, cst.Nonlocal) for one in script.all(kind) for item in one.names
        ]
        if any(one.value == name for part in others for one in script.all(cst.Name, part)):
            return False
        made = [
            one
            for one in assignments(script, self.loop.top)
            if any(name in map(dotted, script.all((cst.Name, cst.Attribute), part)) for part in one.targets)
        ]
        if not made or not all(
            isinstance(one.value, cst.Call) and dotted(one.value.func) in moves and len(one.targets) == 1
            for one in made
        ):
            return False
        walk = Walk(script)
        walk.block(self.loop.top.body.body)
        return name not in walk.changed and not any(
            on == name and method not in _MOVES and self.changes(name, method, call)
            for on, method, call in walk.calls
        )

    def is_container(self, name: str) -> bool:
        """Tell whether a variable is brought back as a value: a list, a dict, a tensor, an array."""
        made = self.made(name)
        return not made or any(one in CONTAINERS or _ARRAYS.search(one) for one in made)

    def holds_container(self, owner: str, attribute: str) -> bool:
        """Tell whether an attribute of an object of the script's own class is a list, a dict or the like."""
        kinds = [self.classes[one] for one in self.made(owner) if one in self.classes]
        return any(attribute in containers_of(kind) for kind in kinds)

    def keeps_values(self, name: str) -> bool:
        """Tell whether what changes in a variable can be seen in its value, or its own class says so."""
        known = any(one in self.classes for one in self.made(name))
        return known or self.is_container(name) or self.is_module(name)

    def is_module(self, name: str) -> bool:
        """Tell whether a name is that of a module of the script's own class, or of a copy of a model."""
        made = self.made(name)
        if any(one.endswith("deepcopy") for one in made):
            return any(
                dotted(argument.value).removesuffix(".module") in self.names.models
                for one in map(call_that_makes, self.sources(name))
                if isinstance(one, cst.Call)
                for argument in one.args
            )
        return self._counts_rows(name) or any(
            is_kind(self.script, self.classes[one], "Module", self.classes)
            for one in made
            if one in self.classes
        )

    def _counts_rows(self, name: str) -> bool:
        """Tell whether a name is that of a module of torch's own layers whose buffers each batch changes."""
        script = self.script
        made = [one for one in self.sources(name) if isinstance(call_that_makes(one), cst.Call)]
        if not any(script.path(call_that_makes(one).func).startswith("torch.nn.") for one in made):
            return False
        trains = any(receiver(call) == name for call in method_calls(script, "train"))
        fixed = any(receiver(call) == name for call in method_calls(script, "eval")) and not trains
        counts = any(
            _COUNTS_ROWS.search(script.code(one)) and not script.code(one).endswith(".eval()") for one in made
        )
        return counts and not fixed

    def acts_as_module(self, name: str) -> bool:
        """Tell whether the script asks an object somewhere for what only modules have."""
        return any(
            receiver(call) == name for method in OF_MODULES for call in method_calls(self.script, method)
        )

    def changes_unasked(self, name: str) -> bool:
        """Tell whether to read an object may change it: by a property, or what ``table[key]`` and ``len()`` call."""
        kinds = [self.classes[one] for one in self.made(name) if one in self.classes]
        return any(
            changes_itself(self.script, kind, method, self.classes)
            for kind in kinds
            for method in called_unasked(kind)
        )

    def changes(self, name: str, method: str, call: Any) -> bool:
        """Tell whether a call of a method changes its object. Raises UnclearError for what no checkpoint has."""
        script, made = self.script, self.made(name)
        kinds = [self.classes[one] for one in made if one in self.classes]
        if kinds:
            if any(holds_iterator(kind) for kind in kinds) and method != "__len__":
                raise UnclearError(
                    f"line {script.line(call)} calls {name}.{method}(), and {made[0]} holds an open iterator, whose "
                    "place in its data isn't in a checkpoint"
                )
            return any(changes_itself(script, kind, method, self.classes) for kind in kinds)
        if any(LOGS.search(one) for one in made):
            return False
        if any(ENVIRONMENT.search(one) for one in made):
            raise UnclearError(
                f"{name} is an environment, whose state isn't saved with a checkpoint: a resume would begin it anew"
            )
        if _GIVES_BATCHES.fullmatch(method) and made:
            raise UnclearError(
                f"line {script.line(call)} takes its batches from {name}.{method}(), and where {made[0]} is in its "
                "data isn't known: a resume would start the data over"
            )
        containers = not made or any(one in CONTAINERS for one in made)
        if GROWS.fullmatch(method) and containers:
            return True
        return bool(made) and bool(COUNTS.fullmatch(method)) and not made[0].startswith("torch.")
