"""What the tests of many ranks share: the fork server, and the uninterrupted stock runs to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.ranks.launch import Group, Ranks, end_all


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """A fork server that has imported the program; its runs die with it."""
    with ForkServer("tests.ranks.train_ranks") as server:
        yield server


@pytest.fixture(scope="session")
def reference(forks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Group]:
    """The uninterrupted run of the stock Trainer for a kind of training and a number of ranks; made once."""
    made: dict[tuple[str, int], Group] = {}

    def find(kind: str, world: int) -> Group:
        if (kind, world) not in made:
            folder: Path = tmp_path_factory.mktemp(f"reference-{kind}-{world}")
            group = Ranks(forks, folder, [folder / "output"] * world, kind=kind).start()
            group.succeed()
            made[kind, world] = group
        return made[kind, world]

    return find


WHOLE_RUNS = (
    "test_kills",
    "test_world_size",
    "test_nodes",
    "test_trouble",
    "test_launchers",
    "test_layouts.py::test_layout[fsdp",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out whole runs of several ranks where stock transformers can't resume one on CPUs."""
    import transformers

    if int(transformers.__version__.split(".")[0]) >= 5:
        return
    reason = (
        "the oldest versions can't: transformers 4 maps an optimizer to a device cpu:<rank> that torch doesn't know, "
        "and its FSDP finds no device on a CPU"
    )
    for item in items:
        if any(f"tests/ranks/{name}" in item.nodeid for name in WHOLE_RUNS):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """No rank outlives its test."""
    yield
    end_all()
