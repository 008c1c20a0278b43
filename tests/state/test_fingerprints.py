"""What moves within attributes of a script's own objects, and whose objects are."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy
import torch

from tests.trainer.kit import model
from vaultlayer_hf import Trainer
from vaultlayer_hf.state.fingerprints import moved, take_fingerprints
from vaultlayer_hf.state.object_kinds import is_of_script, own_attributes


class Average:
    """Keeps an average of the weights."""

    def __init__(self, of: torch.nn.Module) -> None:
        self.shadow = {name: value.detach().clone() for name, value in of.named_parameters()}


def test_what_moves_within_attributes() -> None:
    """A change shows wherever it is; what stays, what is known and what comes back otherwise is not named."""
    inner = torch.nn.Linear(2, 2)
    held: dict[str, Any] = {
        "queue": torch.zeros(3, 1000, 100),
        "rows": list(range(1000)),
        "table": {"a": numpy.zeros(3)},
        "losses": {row: [0.0] for row in range(1000)},
        "long": {row: [0.0] * 100 for row in range(1000)},
        "kept": {row: [0.0] for row in range(1000)},
        "head": inner,
        "own": Average(inner),
        "same": [1, 2],
        "model": model(),
        "rng": random.Random(0),
        "rngs": {"torch": torch.Generator()},
    }
    known = {id(one) for one in held["model"].parameters()}
    then = take_fingerprints({"it": held}, known)
    held["queue"][1, 0, 0] = 1
    held["rows"].reverse()
    held["table"]["a"][2] = 1
    held["losses"][8][0] = 1.0
    held["long"][8].append(1.0)
    held["own"].shadow["bias"].add_(1)
    held["rng"].random()
    torch.rand(1, generator=held["rngs"]["torch"])
    with torch.no_grad():
        inner.bias.add_(1)
        held["model"].lm_head.weight.add_(1)
    held["late"] = 1
    found = moved(then, take_fingerprints({"it": held}, known))
    expected = ["queue", "rows", "table", "losses", "long", "head", "own", "rng", "rngs", "late"]
    assert found == [f"it.{name}" for name in expected]


def test_what_a_library_assigns_is_not_the_scripts_own() -> None:
    """However many names its method has, and within functions of it, too; what it only reads may be the script's."""
    lines = [f"self.its_{number} = self.read_{number}" for number in range(300)]
    text = "\n    ".join(["def fill(self):", *lines, "def inner():", "    self.within = self.last"])
    made: dict[str, Any] = {}
    exec(text, made)
    library = type("Library", (), {"fill": made["fill"], "__module__": "torch.nn"})
    thing = type("Mine", (library,), {})()
    vars(thing).update({f"{what}_{number}": 0 for what in ("its", "read") for number in range(300)})
    vars(thing).update(within=0, last=0)
    assert set(own_attributes(thing)) == {"last", *(f"read_{number}" for number in range(300))}


def test_whose_a_class_is() -> None:
    """Of the script's own is what it or a module beside it defines; not torch's, Python's, ours."""
    assert [is_of_script(cls) for cls in (Average, torch.nn.Linear, random.Random, dict, Path, Trainer)] == [
        True,
        *[False] * 5,
    ]
