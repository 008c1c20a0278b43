"""Print the picture of a package's imports: `python -m tests.structure [PACKAGE_DIR]`; vaultlayer_hf by default."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from tests.structure.imports import DOOR, Module, arrows, children, circles, folders, read_package
from tests.structure.order import ORDER, against_the_order, knows_transformers, long_without_reason


def main() -> None:
    """Print folders, arrows, what points up, circles, files that are too long, and the package's top."""
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "vaultlayer_hf"
    modules = read_package(package)
    print(f"{package.name}: {len(modules)} files, {sum(module.lines for module in modules.values())} lines\n")
    _rooms(modules)
    _arrows(modules)
    _circles(modules)
    _files(modules, package)


def _rooms(modules: dict[str, Module]) -> None:
    print("Folders (files, lines):")
    rooms: dict[str, list[Module]] = defaultdict(list)
    for name, module in modules.items():
        rooms[name.rpartition(".")[0]].append(module)
    for room, inside in sorted(rooms.items()):
        label = room.replace(".", "/") + "/" if room else "(top)"
        print(f"  {label:24}{len(inside):4}{sum(module.lines for module in inside):7}")


def _arrows(modules: dict[str, Module]) -> None:
    for folder in folders(modules):
        pairs = arrows(modules, folder)
        entries = set(children(modules, folder).values())
        rooms = {entry for entry in entries if f"{folder}.{entry}.".lstrip(".") in _prefixes(modules)}
        if not pairs or (folder and not rooms):
            continue
        wrong = against_the_order(modules, folder)
        title = folder.replace(".", "/") or "the package"
        print(
            f"\nImports between the entries of {title} ({sum(pairs.values())}, {sum(wrong.values())} upwards):"
        )
        _print_arrows(pairs, wrong, folder)


def _print_arrows(pairs: dict[tuple[str, str], int], wrong: dict[tuple[str, str], int], folder: str) -> None:
    after: dict[str, list[str]] = defaultdict(list)
    for (source, target), count in sorted(pairs.items()):
        after[source].append(f"{target} {count}{' UP' if (source, target) in wrong else ''}")
    order = [entry for layer in ORDER.get(folder, []) for entry in sorted(layer)]
    for source in sorted(
        after, key=lambda entry: (order.index(entry) if entry in order else len(order), entry)
    ):
        print(f"  {source:18} -> {', '.join(after[source])}")


def _prefixes(modules: dict[str, Module]) -> set[str]:
    return {name.rpartition(".")[0] + "." for name in modules if "." in name}


def _circles(modules: dict[str, Module]) -> None:
    print("\nCircles:")
    found = [(folder, ring) for folder in folders(modules) for ring in circles(arrows(modules, folder))]
    for folder, ring in found:
        print(f"  in {folder.replace('.', '/') or 'the package'}: {', '.join(ring)}")
    if not found:
        print("  none")


def _files(modules: dict[str, Module], package: Path) -> None:
    print("\nImport transformers and may not: " + (", ".join(knows_transformers(modules)) or "none"))
    print("Above 300 lines without a reason at the top:")
    too_long = long_without_reason(modules)
    for module in sorted(too_long, key=lambda module: -module.lines):
        print(f"  {module.path.relative_to(package)} {module.lines}")
    if not too_long:
        print("  none")
    top = sorted({entry for entry in children(modules, "").values() if entry != DOOR} | {DOOR})
    print(f"Entries at the package's top: {len(top)}: {', '.join(top)}")


if __name__ == "__main__":
    main()
