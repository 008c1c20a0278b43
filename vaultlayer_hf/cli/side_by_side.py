"""Pictures of several runs on the same axes, for a light page and for a dark one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaultlayer_hf.cli.charts import STYLE, draw_steps, pyplot, time_axis

if TYPE_CHECKING:
    from vaultlayer_hf.run.story import RunStory

_DARK_INK, _DARK_MUTED, _DARK_GRID = "#e6edf3", "#9aa7b4", "#30363d"
_DARK = {
    "text.color": _DARK_INK,
    "axes.labelcolor": _DARK_MUTED,
    "axes.titlecolor": _DARK_INK,
    "grid.color": _DARK_GRID,
    "xtick.color": _DARK_MUTED,
    "ytick.color": _DARK_MUTED,
}
"""What differs on a dark page; the colours of lines are seen on both."""


def side_by_side(runs: Sequence[tuple[str, RunStory]], *, dark: bool = False) -> str:
    """Return one SVG with each run's steps over wall time, one below the other on the same axes.

    Args:
        runs: a title and a story each.
        dark: for a dark page; the background is left open either way.

    Raises MissingExtraError.
    """
    plots = pyplot()
    # Text as paths: the picture looks the same where a page's reader lacks the font.
    with plots.rc_context({**STYLE, **(_DARK if dark else {}), "svg.fonttype": "path"}):
        size = (9.6, 2.6 * len(runs))
        figure, all_axes = plots.subplots(
            len(runs), 1, figsize=size, layout="constrained", sharex=True, sharey=True, squeeze=False
        )
        longest = max((story for _, story in runs), key=lambda story: story.end - story.begin)
        for axes, (title, story) in zip(all_axes[:, 0], runs, strict=True):
            draw_steps(axes, story, longest)
            axes.set_title(title, fontweight="bold")
            axes.set_xlabel("")
            legend = axes.get_legend()
            if legend is not None:
                legend.remove()
        time_axis(all_axes[-1, 0], longest)
        steps = [step for _, story in runs for attempt in story.attempts for _, step in attempt.steps]
        if any(steps):  # each run's own limit would cut off one that came further
            all_axes[0, 0].set_ylim(0, 1.08 * max(steps))
        known = [axes.get_legend_handles_labels() for axes in all_axes[:, 0]]
        once = {label: one for handles, labels in known for one, label in zip(handles, labels, strict=True)}
        figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=len(once))
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
        plots.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
