"""Pictures of a run, drawn by matplotlib from its story: SVG for a page, PNG for everywhere else."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vaultlayer_hf.errors import MissingExtraError

if TYPE_CHECKING:
    from vaultlayer_hf.run.story import RunStory

INK, MUTED, GRID = "#1f2933", "#66727f", "#e4e7eb"
BLUE, GREEN, RED, AMBER, GREY = "#2f6fde", "#1f9d63", "#d64545", "#d9822b", "#b8c1cc"
STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched, selected and read aloud
    "svg.hashsalt": "vaultlayer",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GREY,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
Draw = Callable[[Any, "RunStory"], None]
_WIDTH = 9.6
"""Of each picture, in inches."""
_LETTER = 0.0085
"""Of the axes' width: that of a letter of a death's name."""
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.85, 0.15, 0.55, 0.32
"""Inches around the axes of each picture of a page: the same for all, so that their time axes lie below each other."""


def figures() -> list[tuple[str, float, Draw]]:
    """Return each picture's title, its height in inches, and what draws it on axes."""
    return [
        ("Steps over wall time", 4.0, draw_steps),
        ("Exposure: what a death would have cost", 2.2, _exposure),
        ("Where the wall time went", 1.5, _time),
        ("Stall: how long saves held the training up", 1.9, _stalls),
        ("Loss", 2.4, _losses),
    ]


def svgs(story: RunStory) -> list[tuple[str, str]]:
    """Return each picture's title and its SVG, for a page. Raises MissingExtraError."""
    plots = pyplot()
    found = []
    with plots.rc_context(STYLE):
        for title, height, draw in figures():
            figure, axes = plots.subplots(figsize=(_WIDTH, height))
            figure.subplots_adjust(_LEFT / _WIDTH, _BOTTOM / height, 1 - _RIGHT / _WIDTH, 1 - _TOP / height)
            draw(axes, story)
            buffer = io.StringIO()
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
            plots.close(figure)
            text = buffer.getvalue()
            found.append((title, text[text.index("<svg") :]))
    return found


def png(story: RunStory) -> bytes:
    """Return all pictures as one PNG. Raises MissingExtraError."""
    plots = pyplot()
    with plots.rc_context(STYLE):
        figure = one_figure(plots, story)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        plots.close(figure)
    return buffer.getvalue()


def one_figure(plots: Any, story: RunStory) -> Any:
    """Return a figure of pyplot with all pictures, one below the other."""
    heights = [height for _, height, _ in figures()]
    figure, axes = plots.subplots(
        len(heights), 1, figsize=(_WIDTH, sum(heights) + 1), layout="constrained", height_ratios=heights
    )
    for one, (title, _, draw) in zip(axes, figures(), strict=True):
        draw(one, story)
        one.set_title(title, fontweight="bold")
    figure.suptitle(f"{story.vault or 'A run'}: {story.state}", x=0.01, ha="left", fontweight="bold")
    return figure


def pyplot() -> Any:
    """Return matplotlib's pyplot, drawing without a screen. Raises MissingExtraError."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError(
            "vl report draws with matplotlib, which isn't installed: pip install 'vaultlayer-hf[report]'"
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _unit(story: RunStory) -> tuple[float, str]:
    """Return seconds in the unit of the time axis, and its name."""
    span = story.end - story.begin
    return (1.0, "s") if span < 180 else (60.0, "min") if span < 3 * 3600 else (3600.0, "h")


def time_axis(axes: Any, story: RunStory, longest: RunStory | None = None) -> Callable[[float], float]:
    """Label the time axis, that of the longest run where several share it; return what turns a moment into a place."""
    spanned = longest or story
    unit, name = _unit(spanned)
    axes.set_xlabel(f"{name} since the first attempt began")
    axes.set_xlim(0, max(1e-9, (spanned.end - spanned.begin) / unit) * 1.03)
    return lambda moment: (moment - story.begin) / unit


def draw_steps(axes: Any, story: RunStory, longest: RunStory | None = None) -> None:
    """Draw a run's steps over wall time, with its deaths, what they cost, and its commits."""
    place = time_axis(axes, story, longest)
    free_from = 0.0  # on the time axis, behind the last death's name
    for attempt, after in zip(story.attempts, [*story.attempts[1:], None], strict=False):
        line = [(place(moment), step) for moment, step in attempt.steps]
        if line:
            axes.plot(*zip(*line, strict=True), color=BLUE, linewidth=1.8, label="training")
        end = place(attempt.end) if attempt.end is not None else None
        if end is not None and attempt.step is not None and attempt.cause != "finished":
            axes.plot([end], [attempt.step], "x", color=RED, markersize=9, markeredgewidth=2.2, label="death")
            cause = attempt.cause or ""
            # With many deaths not all have room for a name: the page's table has them all.
            if end >= free_from:
                axes.annotate(
                    cause, (end, attempt.step), (5, 5), textcoords="offset points", color=RED, fontsize=9
                )
                free_from = end + axes.get_xlim()[1] * _LETTER * (len(cause) + 2)
        if attempt.lost and after is not None and end is not None and attempt.step is not None:
            # A line, however soon the next attempt began: the time between would be no width at all.
            axes.vlines(
                end,
                attempt.step - attempt.lost,
                attempt.step,
                color=RED,
                alpha=0.4,
                linewidth=4,
                label="lost work",
            )
    for attempt in story.attempts[1:]:
        axes.axvline(
            place(attempt.begin), color=GREY, linewidth=0.8, linestyle=(0, (3, 3)), label="next attempt"
        )
    if story.commits:
        dots = [(place(moment), step) for moment, step in story.commits]
        axes.plot(*zip(*dots, strict=True), "o", color=GREEN, markersize=4.5, label="commit", zorder=3)
    reached = max((step for attempt in story.attempts for _, step in attempt.steps), default=0.0)
    # Further away, the line would flatten all else.
    if story.max_steps is not None and story.max_steps <= 2 * reached:
        axes.axhline(story.max_steps, color=GREY, linewidth=1)
    axes.set_ylabel("step" if story.max_steps is None else f"step (of {story.max_steps:,})")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    _legend(axes)


def _exposure(axes: Any, story: RunStory) -> None:
    place = time_axis(axes, story)
    unit, name = _unit(story)
    times = [moment for moment, _ in story.commits]
    for attempt, after in zip(story.attempts, [*story.attempts[1:], None], strict=False):
        end = attempt.end if attempt.end is not None else after.begin if after is not None else story.end
        corners, since = [(attempt.begin, 0.0)], attempt.begin
        for moment in [moment for moment in times if attempt.begin <= moment <= end]:
            corners += [(moment, moment - since), (moment, 0.0)]
            since = moment
        # Behind the last commit of a training that is over there is nothing to lose.
        if attempt.cause != "finished" and not attempt.over:
            corners.append((end, end - since))
        points = [(place(moment), height / unit) for moment, height in corners]
        axes.fill_between(*zip(*points, strict=True), color=AMBER, alpha=0.3, linewidth=0)
        axes.plot(*zip(*points, strict=True), color=AMBER, linewidth=1.2)
        if attempt.end is not None and attempt.cause != "finished":
            axes.plot(*points[-1], "x", color=RED, markersize=8, markeredgewidth=2, label="death")
    axes.set_ylabel(f"{name} since a commit")
    axes.set_ylim(bottom=0)
    _legend(axes)


def _time(axes: Any, story: RunStory) -> None:
    if story.goodput is None:
        _empty(axes, "not known: the log tells of commits, not of the time between them")
        axes.spines["left"].set_visible(False)
        return
    wall = max(1e-9, story.end - story.begin)
    left = 0.0
    for (name, seconds), color in zip(time_parts(story), (GREEN, RED, GREY), strict=True):
        share = 100 * seconds / wall
        axes.barh([0], [share], left=[left], color=color, height=0.5, label=f"{name}: {share:.1f} %")
        left += share
    axes.set_xlim(0, 100)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("% of the wall time")
    # Its labels are the longest: with the usual gaps they lie on the title.
    _legend(axes, handlelength=1.0, handletextpad=0.4, columnspacing=1.0)


def time_parts(story: RunStory) -> list[tuple[str, float]]:
    """Return seconds of the wall time that went into steps that count, into steps trained twice, and into the rest."""
    good = (story.goodput or 0.0) * (story.end - story.begin)
    spans = [
        (
            attempt.steps[-1][0] - attempt.steps[0][0],
            attempt.steps[-1][1] - attempt.steps[0][1],
            attempt.lost or 0,
        )
        for attempt in story.attempts
        if len(attempt.steps) > 1
    ]
    twice = sum(span * min(1.0, lost / max(1.0, steps)) for span, steps, lost in spans)
    rest = max(0.0, story.end - story.begin - good - twice)
    return [
        ("steps that count", good),
        ("steps trained twice", twice),
        ("starting, restoring, waiting", rest),
    ]


def _stalls(axes: Any, story: RunStory) -> None:
    place = time_axis(axes, story)
    points = story.stalls
    if not points:
        _empty(axes, "the log's commits say nothing of it")
        return
    axes.vlines([place(moment) for moment, _ in points], 0, [1000 * value for _, value in points], color=BLUE)
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)


def _losses(axes: Any, story: RunStory) -> None:
    drawn = [attempt for attempt in story.attempts if attempt.losses]
    if not drawn:
        _empty(axes, "no loss is known: none was logged, or no `vl run` has kept a journal")
        return
    counted, again = loss_lines(story)
    for points in again:
        axes.plot(*zip(*points, strict=True), color=RED, linewidth=1, alpha=0.5, label="trained again later")
    axes.plot(*zip(*counted, strict=True), color=BLUE, linewidth=1.4, label="loss")
    if again:
        _legend(axes)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")


def loss_lines(story: RunStory) -> tuple[list[tuple[float, float]], list[list[tuple[float, float]]]]:
    """Return the losses of the steps that count, as one line, and those of steps that were trained again later.

    An attempt goes on where an earlier one was saved, so the line has no gap there; of a step that several attempts
    trained, the last one's loss counts.
    """
    counted: list[tuple[float, float]] = []
    again = []
    for attempt in story.attempts:
        if attempt.losses:
            first = attempt.losses[0][0]
            given_up = [point for point in counted if point[0] >= first]
            counted = [point for point in counted if point[0] < first]
            if given_up:
                again.append([*counted[-1:], *given_up])
            counted += attempt.losses
    return counted, again


def _empty(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("")


def _legend(axes: Any, **gaps: float) -> None:
    """Show each label once, above the picture. ``gaps``: between its parts, as matplotlib names them."""
    handles, labels = axes.get_legend_handles_labels()
    once: dict[str, Any] = dict(zip(labels, handles, strict=True))
    if once:
        shown: Sequence[str] = list(once)
        handles, place = [once[label] for label in shown], (1.0, 1.0)
        axes.legend(handles, shown, loc="lower right", bbox_to_anchor=place, ncols=5, **gaps)
