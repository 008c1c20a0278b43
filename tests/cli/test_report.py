"""`vl report`: one file without a network, that a real browser shows without an error."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.trainer.kit import trainer
from vaultlayer_hf.cli.charts import STYLE, draw_steps, loss_lines, one_figure, pyplot
from vaultlayer_hf.cli.compared import losses_of, outcome_of
from vaultlayer_hf.cli.side_by_side import side_by_side
from vaultlayer_hf.run.assemble import assemble
from vaultlayer_hf.run.story import AttemptStory, RunStory
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.log.log import Log, Writer

from . import schema
from .conftest import vl
from .stories import LOST, a_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1100,2400",
]  # fmt: skip
TITLES = [
    "Steps over wall time",
    "Exposure: what a death would have cost",
    "Where the wall time went",
    "Stall: how long saves held the training up",
    "Loss",
    "Attempts",
    "What each start took, up to its first step",
    "Commits, the newest first",
]


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    """A folder with report.html and report.png of a run with two deaths."""
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'vaultlayer-hf[report]'")
    folder = tmp_path_factory.mktemp("report")
    a_run(folder)
    done = vl("report", "--png", "report.png", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert schema.misfits(done.json(), schema.REPORT) == []
    return folder


def test_the_page_needs_no_network(reported: Path) -> None:
    """Nothing in the page leads anywhere: no address but the names of XML's vocabularies, no script, no file."""
    text = (reported / "report.html").read_text()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "img", "iframe", "object")
            for name, value in attributes:
                assert name not in ("src", "srcset"), (tag, name)
                assert name not in ("href", "xlink:href") or value.startswith("#"), (tag, value)
                assert name.startswith("xmlns") or not re.search(r"https?://", value or ""), (
                    tag,
                    name,
                    value,
                )

    Reader().feed(text)
    assert not re.search(r"@import|url\((?!#)", text)
    assert text.count("<svg") == 5


def test_what_a_run_says_is_text_in_the_page(reported: Path) -> None:
    """An error's message with markup in it is shown, not taken for markup."""
    text = (reported / "report.html").read_text()
    assert "&lt;of 1000&gt;" in text
    assert "<of 1000>" not in text


def test_the_png_is_a_picture(reported: Path) -> None:
    """--png writes all pictures as one, and they aren't empty."""
    from PIL import Image

    with Image.open(reported / "report.png") as picture:
        assert picture.size[0] > 1000
        assert picture.size[1] > 1200
        assert len(picture.convert("RGB").getcolors(2**24)) > 50


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")
def test_a_browser_shows_it(reported: Path, tmp_path: Path) -> None:
    """Headless Chromium lays the page out: each picture has its size and its marks, nothing sticks out."""
    probe = """
<script>
window.addEventListener("load", () => {
  const pictures = [...document.querySelectorAll("svg")].map(one => ({
    width: one.getBoundingClientRect().width, height: one.getBoundingClientRect().height,
    texts: [...one.querySelectorAll("text")].map(text => text.textContent.trim()),
    marks: one.querySelectorAll("use").length,
  }));
  const titles = [...document.querySelectorAll("h2")].map(one => one.textContent);
  const root = document.documentElement;
  document.title = JSON.stringify({pictures, titles, wide: root.scrollWidth > root.clientWidth});
});
</script></body>"""
    page = tmp_path / "probed.html"
    page.write_text((reported / "report.html").read_text().replace("</body>", probe))
    dom = browse(page, tmp_path, "--dump-dom")
    found = json.loads(
        re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1].replace("&lt;", "<").replace("&gt;", ">")
    )
    assert found["titles"] == TITLES
    assert not found["wide"]
    assert all(picture["width"] > 600 and picture["height"] > 80 for picture in found["pictures"])
    steps = found["pictures"][0]
    assert {"killed", "memory", "death", "commit", "lost work"} <= set(steps["texts"])
    assert "ms" in found["pictures"][3]["texts"], "the log tells of each save's stall"
    assert steps["marks"] >= 12, "two deaths and ten commits"
    shot = tmp_path / "shot.png"
    browse(reported / "report.html", tmp_path, f"--screenshot={shot}")
    from PIL import Image

    with Image.open(shot) as picture:
        colors = {color: count for count, color in picture.convert("RGB").getcolors(2**24)}
    assert colors.get((47, 111, 222), 0) > 200, "no line of steps in the picture"
    assert colors.get((214, 69, 69), 0) > 200, "nothing of what was lost in the picture"


def browse(page: Path, work: Path, *options: str) -> str:
    """Open a page in a browser that finds no network; return what it prints."""
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={work / 'profile'}", *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(work)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_report_without_matplotlib_names_the_extra(trained: Path, tmp_path: Path) -> None:
    """Where matplotlib is missing, the extra is named with 2, and nothing is written."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\nfrom vaultlayer_hf.cli import main\n"
        f"sys.argv = ['vl', 'report', {str(trained)!r}]\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "vaultlayer-hf[report]" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_several_runs_side_by_side(tmp_path: Path) -> None:
    """Two runs in one page: a column each, and their steps on the same axes; a picture file is of one run."""
    for name in "ab":
        (tmp_path / name).mkdir()
    first, second = a_run(tmp_path / "a")[0], a_run(tmp_path / "b")[0]
    done = vl("report", str(first), str(second), "--out", "both.html", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert [run["lost_steps"] for run in done.json()["runs"]] == [LOST, LOST]
    text = (tmp_path / "both.html").read_text()
    assert text.count("<svg") == 2  # for a light page and for a dark one
    assert text.count("90 steps were trained twice") == 2
    assert vl("report", str(first), str(second), "--png", "x.png", cwd=tmp_path).code == 2


def test_losses_and_the_settings_that_differ_come_side_by_side(trained: Path, tmp_path: Path) -> None:
    """Two vaults: the last and the lowest loss of each, and of the settings the rate alone, which differs."""
    from tests.cli.trained_run import train

    train(str(tmp_path / "out"), str(tmp_path / "other"), learning_rate=0.01)
    done = vl("report", str(trained), str(tmp_path / "other"), "--out", "two.html", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    text = (tmp_path / "two.html").read_text()
    for vault, run in zip((trained, tmp_path / "other"), done.json()["runs"], strict=True):
        state = json.loads(next(vault.glob("data/*/checkpoint-60/trainer_state.json")).read_text())
        losses = {item["step"]: item["loss"] for item in state["log_history"] if "loss" in item}
        lowest = min(losses, key=losses.__getitem__)
        told = {"step": 60, "value": losses[60], "lowest_step": lowest, "lowest_value": losses[lowest]}
        assert run["figures"]["loss"] == told
        shown = f"{losses[60]:.4f} (step 60)"
        shown += f"; lowest {losses[lowest]:.4f} (step {lowest})" if lowest != 60 else ""
        assert f"<td>{shown}</td>" in text
    differ = text.partition("Settings that differ")[2].partition("</section>")[0]
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", differ)
    assert rows == [("learning_rate", "5e-05", "0.01")]


def test_what_a_later_attempt_left_behind_is_no_outcome(tmp_path: Path) -> None:
    """Killed at step 9 and at 6 now, or sent back by @STEP: losses beyond the new begin count no more."""
    first = AttemptStory(1, 0.0, step=9, losses=((3, 3.0), (6, 1.0), (9, 0.5)))
    unknown = AttemptStory(2, 1.0, losses=())  # died ahead of its training
    later = AttemptStory(3, 2.0, began_at=3, step=6, losses=((6, 2.0),))
    assert losses_of([first, unknown, later]) == {3: 3.0, 6: 2.0}
    vault = tmp_path / "vault"
    trainer(tmp_path / "output", resume=vault, max_steps=4).train()
    last = AttemptStory(2, 2.0, began_at=2, step=3, losses=((3, 2.0),))
    story = RunStory(str(vault), "running", "", (last,), (), (), 8, 3.0)
    assert outcome_of(story).figures["loss"].keys() == {1, 2, 3}
    story = replace(story, attempts=(replace(last, step=4),))
    assert outcome_of(story).figures["loss"].keys() == {1, 2, 3, 4}


def test_the_journal_of_a_vault_is_found(tmp_path: Path) -> None:
    """A vault that is named beside the `.vl` of its run has the run's steps; one that was claimed since has not."""
    run, vault = a_run(tmp_path / "a")
    done = vl("report", str(vault), "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (done.json()["lost_steps"], done.json()["watched"]) == (LOST, True)
    (tmp_path / "runs").mkdir()
    run.rename(tmp_path / ".vl")  # where the command is given
    assert vl("report", str(vault), "--json", cwd=tmp_path / "runs").json()["lost_steps"] == LOST
    Writer.claim(
        open_store(str(vault)), Log(open_store(str(vault)))
    )  # ten minutes behind the end of that run
    again = vl("report", str(vault), "--json", cwd=tmp_path).json()
    assert (again["lost_steps"], again["watched"]) == (None, False)


def test_a_start_is_split_into_its_stages() -> None:
    """Imports, the model, restore, loading, the first step; a stage whose end nobody saw is one with the next."""
    start = {"kind": "start", "run": "r", "attempt": 1, "time": 10.0, "pid": 1}
    lines = [
        {"kind": "hooked", "time": 14.0},
        {"kind": "vault", "event": "claim", "time": 15.5},
        {"kind": "vault", "event": "restore", "time": 17.0},
        {"kind": "train", "time": 17.25, "step": 5},
        {"kind": "first-step", "time": 17.5, "step": 6},
        {"kind": "first-step", "time": 30.0, "step": 9},
    ]

    def took(*kept: int) -> tuple[tuple[str, float], ...]:
        notes = {1: {0: [lines[number] for number in kept]}}
        return assemble([start], notes, {}, [], vault=None, alive=False, now=40.0).attempts[0].start

    assert took(0, 1, 2, 3, 4, 5) == (
        ("Python, imports", 4.0),
        ("model, data", 1.5),
        ("restore", 1.5),
        ("loading, data skip", 0.25),
        ("first step", 0.25),
    )
    assert took(0, 3) == (("Python, imports", 4.0), ("model, data; restore; loading, data skip", 3.25))
    assert took() == ()


def test_the_loss_has_no_gap_where_an_attempt_goes_on() -> None:
    """One line over all attempts; what was trained again is drawn apart, from the point where it was left."""
    attempts = (
        AttemptStory(1, 0.0, losses=((10.0, 5.0), (20.0, 4.0), (30.0, 3.5))),
        AttemptStory(2, 9.0),
        AttemptStory(3, 10.0, losses=((30.0, 3.4), (40.0, 3.0))),
    )
    story = RunStory(None, "finished", "", attempts, (), (), None, 100.0)
    counted, again = loss_lines(story)
    assert counted == [(10.0, 5.0), (20.0, 4.0), (30.0, 3.4), (40.0, 3.0)]
    assert again == [[(20.0, 4.0), (30.0, 3.5)]]


def test_runs_side_by_side_share_the_unit_of_time() -> None:
    """A run of 100 s beside one of 300 s is drawn on the same axis of minutes, and not outside of the picture."""
    plots = pytest.importorskip(
        "matplotlib.figure", reason="needs matplotlib: pip install 'vaultlayer-hf[report]'"
    )
    short, long = (
        RunStory(None, "finished", "", (attempt,), (), (), 100, seconds)
        for seconds in (100.0, 300.0)
        for attempt in [
            AttemptStory(1, 0.0, seconds, "", "finished", step=9, steps=((0.0, 0.0), (seconds, 9.0)))
        ]
    )
    axes = plots.Figure().subplots()
    draw_steps(axes, short, long)
    assert max(axes.lines[0].get_xdata()) == pytest.approx(100 / 60)
    assert axes.get_xlim()[1] == pytest.approx(5, rel=0.05)
    assert axes.get_xlabel().startswith("min ")


def test_a_run_that_came_further_is_not_cut_off() -> None:
    """Beside a run of 9 steps one of 90 is drawn to its end: the axis of steps, which they share, reaches that far."""
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'vaultlayer-hf[report]'")
    runs = [
        (str(last), RunStory(None, "finished", "", (attempt,), (), (), int(last), 40.0))
        for last in (9.0, 90.0)
        for attempt in [AttemptStory(1, 0.0, 39.0, "", "finished", step=9, steps=((0.0, 0.0), (39.0, last)))]
    ]
    drawn = side_by_side(runs)
    assert "<!-- 80 -->" in drawn, "a number on the axis of steps"


def test_no_legend_lies_on_a_title() -> None:
    """In the PNG each picture's title ends before its legend begins, with shares of as many digits as there can be."""
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'vaultlayer-hf[report]'")
    first = AttemptStory(
        1, 0.0, 50.0, cause="killed", step=40, steps=((10.0, 0.0), (50.0, 40.0)), losses=((1, 3.0),), lost=20
    )
    span = ((70.0, 20.0), (160.0, 100.0))
    second = AttemptStory(2, 50.0, 160.0, cause="finished", step=100, steps=span, losses=((21, 2.1),))
    story = RunStory(None, "finished", "", (first, second), ((30.0, 20.0),), ((30.0, 0.1),), 100, 200.0, 100)
    plots = pyplot()
    with plots.rc_context(STYLE):
        figure = one_figure(plots, story)
        figure.canvas.draw()
        # The title is the one text of an axes' own that is bold.
        boxes = [
            (title.get_window_extent(), legend.get_window_extent())
            for axes in figure.axes
            if (legend := axes.get_legend()) is not None
            for title in axes.findobj(lambda one: getattr(one, "get_fontweight", str)() == "bold")
        ]
        plots.close(figure)
    assert len(boxes) >= 3
    for title, legend in boxes:
        assert title.x1 < legend.x0
