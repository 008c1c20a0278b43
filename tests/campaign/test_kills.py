"""A run that is killed anywhere goes on from its newest acknowledged commit, and ends as if nothing had happened.

The whole campaign is slow; the default tests take a sample of it that is spread over all kinds of points.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.harness import Campaign, Point, Try, expected
from tests.campaign.parts import MIDDLE, PARTS, campaign_on, point_of, shared_memory
from tests.campaign.points import STEPS
from tests.forks import ForkServer


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one: a kill of a process can't lose what a disk would lose."""
    with tempfile.TemporaryDirectory(prefix="vl-campaign-", dir=shared_memory()) as folder:
        yield Path(folder)


@pytest.fixture
def on_folders(forks: ForkServer, scratch: Path) -> Campaign:
    """A campaign on vaults in folders."""
    return Campaign(forks, scratch, lambda folder: str(folder / "vault"))


@pytest.fixture
def on_s3(forks: ForkServer, scratch: Path, s3_uri: str, s3_env: dict[str, str]) -> Campaign:
    """A campaign on vaults on the S3 server."""
    return Campaign(forks, scratch, lambda folder: f"{s3_uri}/{folder.name}", s3_env)


@pytest.mark.parametrize(
    ("part", "limit"), [("save", 10), ("disk", 4), ("overtaken", 4), ("moved", 8), ("resume", 4)]
)
def test_a_killed_run_goes_on_from_what_was_acknowledged(on_folders: Campaign, part: str, limit: int) -> None:
    """A sample of kills on a folder: each next start goes on from the right step and ends bit-identical."""
    PARTS[part](on_folders, limit, 2)
    assert on_folders.tried >= limit
    assert not on_folders.failures, "\n".join(on_folders.failures)


@pytest.mark.slow
def test_a_run_that_saves_beside_its_training_is_killed(on_folders: Campaign) -> None:
    """Killed between capture, write, rename and seal too, it goes on from a whole checkpoint and ends bit-identical."""
    on_folders.options["beside"] = True
    labels = [point.label for point in on_folders.record()]
    assert f"{MIDDLE}: MainThread rename checkpoint-4" in labels
    PARTS["save"](on_folders, 12, 2)
    assert not on_folders.failures, "\n".join(on_folders.failures)


def test_a_killed_run_goes_on_from_s3(on_s3: Campaign) -> None:
    """A sample of kills on S3: each next start goes on from the right step and ends bit-identical."""
    PARTS["save"](on_s3, 5, 2)
    assert on_s3.tried == 5
    assert not on_s3.failures, "\n".join(on_s3.failures)


def test_the_campaign_sees_an_older_start(on_folders: Campaign) -> None:
    """The campaign isn't blind: a vault that loses its newest entry after a kill is reported as a failure."""
    points = on_folders.record()
    place = on_folders.place()
    on_folders.kill(place, Try(point_of(points, f"{MIDDLE}: vaultlayer remove_tree"), "after"))
    due = expected(place)
    assert (due.step, due.event) == (4, "restore")
    newest = max((place.folder / "vault" / "log").iterdir())
    newest.unlink()
    with pytest.raises(AssertionError, match=r"it started at \[2\]"):
        on_folders.finish(place, due)


def test_the_campaign_sees_another_end(on_folders: Campaign) -> None:
    """The campaign isn't blind: a run that ends with other weights than the stock run's is a failure."""
    place = on_folders.place()
    outcome, _ = on_folders.run(place, "short", steps=STEPS - 2)
    assert outcome.code == 0, outcome.errors
    on_folders._reference = (place.folder / "short.result").read_text()
    with pytest.raises(AssertionError, match="differs"):
        on_folders.finish(place, expected(place))


def test_a_point_that_moved_is_no_kill(on_folders: Campaign) -> None:
    """A kill counts only at the very operation that was recorded under its number."""
    wrong = Point(3, "start: MainThread store.create log/*.json")
    with pytest.raises(AssertionError, match="it wasn't killed there"):
        on_folders.kill(on_folders.place(), Try(wrong, "before"))


def test_a_process_is_killed_at_birth(forks: ForkServer, tmp_path: Path) -> None:
    """Killed before it has a process group or an output of its own, a run is as dead as any other."""
    for number in range(20):
        run = forks.start("time:sleep", {}, tmp_path / str(number))
        run.kill()
        assert run.wait(20).code == -9


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("store", "limit"), [("folder", 60), ("s3", 20)])
def test_points_of_every_part(
    store: str, limit: int, scratch: Path, no_aws: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A SIGKILL before and after every operation of a save, a start and an end never costs what was acknowledged.

    At so many kills of each part, evenly spread; at all of them by ``python -m tests.campaign --store s3`` (or folder).
    """
    with campaign_on(store, scratch) as campaign:
        for name, part in PARTS.items():
            before = campaign.tried
            part(campaign, limit, 2)
            with capsys.disabled():
                print(f"\n{store}, {name}: {campaign.tried - before} points tried", flush=True)
    assert not campaign.failures, "\n\n".join(campaign.failures)
