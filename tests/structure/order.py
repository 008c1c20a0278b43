"""The order of the package's folders, top first: an import may only lead to a layer further down.

Entries of one layer don't import each other. A folder's entries that its list leaves out are its ground: any layer may
import them, and among themselves only a circle is wrong.
"""

from __future__ import annotations

from collections import Counter

from tests.structure.imports import DOOR, Module, arrows

Layers = list[set[str]]

# The public names come from all over the package, so its __init__ stands above all. Nothing imports it.
ORDER: dict[str, Layers] = {
    "": [
        {DOOR},
        {"cli"},
        {"run"},
        {"trainer", "loops"},
        {"testing", "session"},
        {"vault"},
        {"stores", "state"},
        {"base"},
        {"errors"},
    ],
    "session": [{"training"}, {"start", "stop"}, {"save", "observers"}, {"session"}],
    "vault": [
        {"reader", "near"},
        {"upload"},
        {"unfrozen"},
        {"restore", "retention", "adoptable"},
        {"workspace"},
        {"snapshot"},
        {"written"},
        {"log"},
        {"manifest"},
        {"parse", "keys"},
    ],
}

# Only these may import transformers: the Trainer's seam, and what `vl run` runs inside the training's processes.
KNOWS_TRANSFORMERS = ("trainer.", "run.inside.")

LINES = 300  # A file above this says at its top why it is one file.


def against_the_order(modules: dict[str, Module], folder: str) -> Counter[tuple[str, str]]:
    """Return the arrows between a folder's entries that lead up, or sideways within a layer."""
    layers = ORDER.get(folder, [])
    depth = {entry: number for number, layer in enumerate(layers) for entry in layer}
    ground = len(layers)
    wrong: Counter[tuple[str, str]] = Counter()
    for (source, target), count in arrows(modules, folder).items():
        above, below = depth.get(source, ground), depth.get(target, ground)
        if above > below or above == below < ground:
            wrong[source, target] = count
    return wrong


def knows_transformers(modules: dict[str, Module]) -> list[str]:
    """Return the modules that import transformers and may not."""
    return sorted(
        name
        for name, module in modules.items()
        if "transformers" in module.libraries and not name.startswith(KNOWS_TRANSFORMERS)
    )


def long_without_reason(modules: dict[str, Module]) -> list[Module]:
    """Return the files above 300 lines whose docstring doesn't say why ("One file, because …")."""
    return [
        module
        for module in modules.values()
        if module.lines > LINES and "one file" not in module.docstring.lower()
    ]
