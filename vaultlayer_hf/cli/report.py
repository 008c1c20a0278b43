"""`vl report`: one HTML file that tells what has happened to a run, in pictures and numbers. Needs no network."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.cli.common import DebugOption, ExitCode, JsonOption, fail, moment_text, one_line_errors
from vaultlayer_hf.cli.compared import figure_rows, outcome_of, setting_rows
from vaultlayer_hf.cli.gather import TargetsArgument, find_target, gather
from vaultlayer_hf.cli.status import ATTEMPT_HEADINGS, attempt_rows, describe, facts, headline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultlayer_hf.cli.compared import Outcome
    from vaultlayer_hf.run.story import RunStory

OutOption = Annotated[Path, typer.Option("--out", "-o", help="The file to write.")]
PngOption = Annotated[Path | None, typer.Option("--png", help="Also write the pictures as one PNG.")]
_COMMITS = 20
"""Of the newest commits that many are shown; the others can be unfolded."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1f2933; background: #f7f8fa; margin: 0; }}
main {{ max-width: 1000px; margin: 0 auto; padding: 28px 20px 60px; }}
h1 {{ font-size: 22px; margin: 0 0 2px; overflow-wrap: anywhere; }}
h2 {{ font-size: 15px; margin: 0 0 6px; }}
.how {{ margin: 0 0 18px; color: #4a5562; }}
section {{ background: #fff; border: 1px solid #e4e7eb; border-radius: 8px; padding: 16px 18px; margin: 0 0 16px; }}
svg {{ display: block; width: 100%; height: auto; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: 4px 14px 4px 0; vertical-align: top; border-top: 1px solid #eef0f3; }}
th {{ color: #66727f; font-weight: 500; border-top: 0; white-space: nowrap; }}
td:first-child, .attempts td:nth-child(2) {{ white-space: nowrap; }}
.facts td:first-child {{ color: #66727f; width: 8em; }}
footer {{ color: #66727f; font-size: 13px; }}
.dark {{ display: none; }}
@media (max-width: 640px) {{
main {{ padding: 16px 8px 40px; }}
section {{ padding: 12px 10px; }}
svg {{ min-width: 620px; }}
table {{ font-size: 13px; }}
.attempts, .attempts tbody, .attempts tr {{ display: block; }}
.attempts tr {{ border-top: 1px solid #8884; padding: 6px 0; }}
.attempts tr:first-child, .attempts td:empty {{ display: none; }}
.attempts td {{ display: inline-block; border: 0; padding: 0 12px 0 0; }}
.attempts td:not([data-label=""])::before {{ content: attr(data-label) " "; color: #7b8794; }}
.attempts td:last-child {{ display: block; }}
}}
summary {{ padding: 8px 0; cursor: pointer; }}
@media (prefers-color-scheme: dark) {{
body {{ color: #e4e7eb; background: #14181d; }}
section {{ background: #1c2229; border-color: #2f3842; }}
.how, th, footer, .facts td:first-child {{ color: #9aa5b1; }}
th, td {{ border-color: #2f3842; }}
.dark {{ display: block; }}
.light {{ display: none; }}
svg text {{ fill: #cbd2d9 !important; }}
svg [style*="stroke: #e4e7eb"] {{ stroke: #2f3842 !important; }}
}}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="how">{how}</p>
{sections}
<footer>Written by vl report {version}, {now} (UTC). Times are UTC.</footer>
</main>
</body>
</html>
"""


def report(
    targets: TargetsArgument = None,
    out: OutOption = Path("report.html"),
    png: PngOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write one HTML file with pictures: steps over wall time, deaths, commits, lost work, exposure, goodput.

    Of several runs it shows how each is, side by side, with losses and the settings that differ. The file needs no
    network. With --json the figures behind it are printed, too.

    Example: vl report .vl --out report.html --png report.png
    """
    with one_line_errors(debug):
        for option, path, endings in (("--out", out, (".html", ".htm")), ("--png", png, (".png",))):
            if path is not None and path.suffix.lower() not in endings:
                raise fail(
                    ExitCode.USAGE,
                    f"{option} {path}: it would hold {endings[0][1:].upper()}, so end its name in {endings[0]}",
                )
        from vaultlayer_hf.cli.charts import png as draw_png

        for path in filter(None, (out, png)):
            path.parent.mkdir(parents=True, exist_ok=True)
        named_runs: list[str | None] = [*targets] if targets else [None]
        stories = [gather(find_target(name)) for name in named_runs]
        if len(stories) > 1:
            if png is not None:
                raise fail(ExitCode.USAGE, "--png is of one run: leave it out, or name one run")
            named = list(zip(targets or [], stories, strict=True))
            outcomes = [outcome_of(story) for story in stories]
            out.write_text(comparison(named, outcomes), encoding="utf-8")
            if as_json:
                runs = [
                    {"run": name, **describe(story), "figures": one.told, "settings": one.settings}
                    for (name, story), one in zip(named, outcomes, strict=True)
                ]
                typer.echo(json.dumps({"files": [str(out)], "runs": runs}, indent=2))
            else:
                typer.echo(f"{out}: {size_text(out.stat().st_size)}")
            return
        (story,) = stories
        out.write_text(page(story), encoding="utf-8")
        written = [out]
        if png is not None:
            png.write_bytes(draw_png(story))
            written.append(png)
        for trouble in story.trouble:
            typer.echo(f"vl: {trouble}", err=True)
        if as_json:
            typer.echo(json.dumps({"files": [str(path) for path in written], **describe(story)}, indent=2))
            return
        for path in written:
            typer.echo(f"{path}: {size_text(path.stat().st_size)}")


def comparison(runs: Sequence[tuple[str, RunStory]], outcomes: Sequence[Outcome]) -> str:
    """Return the page of several runs, each with its name and what it has come to. Raises MissingExtraError."""
    from vaultlayer_hf.base.versions import __version__
    from vaultlayer_hf.cli.side_by_side import side_by_side

    found = [describe(story) for _, story in runs]
    names = [name for name, _ in runs]
    told = [dict(facts(one)) for one in found]
    rows: list[tuple[object, ...]] = [("how it is", *(headline(one) for one in found))]
    rows += [
        (what, *(one.get(what, "") for one in told))
        for what in dict.fromkeys(key for one in told for key in one)
    ]
    rows.append(("attempts", *(len(one["attempts"]) for one in found)))
    rows += figure_rows(outcomes)
    differing = setting_rows(outcomes)
    # Its text is drawn, so a dark page needs a picture of its own.
    pictures = f'<div class="light">{side_by_side(runs)}</div>'
    pictures += f'<div class="dark">{side_by_side(runs, dark=True)}</div>'
    sections = [
        _section("", _table(("", *names), rows, "facts")),
        *([_section("Settings that differ", _table(("", *names), differing, "facts"))] if differing else []),
        _section("Steps over wall time", pictures),
    ]
    return _PAGE.format(
        title=escape(f"{len(runs)} runs"),
        how=escape(", ".join(names)),
        sections="\n".join(sections),
        version=escape(__version__),
        now=moment_text(max(story.now for _, story in runs)),
    )


def page(story: RunStory) -> str:
    """Return the page. Raises MissingExtraError."""
    from vaultlayer_hf.base.versions import __version__
    from vaultlayer_hf.cli.charts import svgs

    found = describe(story)
    sections = [_section("", _table((), facts(found), "facts"))]
    sections += [_section(title, svg) for title, svg in svgs(story)]
    sections.append(_section("Attempts", _table(ATTEMPT_HEADINGS, _attempts(found), "attempts")))
    stages = list(dict.fromkeys(name for item in found["attempts"] for name in item["start"]))
    if stages:
        rows = [
            (item["number"], *_start(item["start"], stages)) for item in found["attempts"] if item["start"]
        ]
        title = "What each start took, up to its first step"
        sections.append(_section(title, _table(("attempt", *stages, "in all"), rows)))
    commits = [(moment_text(moment), int(step)) for moment, step in story.commits]
    if commits:
        table = _table(("committed (UTC)", "step"), commits[-_COMMITS:][::-1])
        if len(commits) > _COMMITS:
            rest = _table(("committed (UTC)", "step"), commits[:-_COMMITS][::-1])
            table += f"<details><summary>{len(commits) - _COMMITS} earlier ones</summary>{rest}</details>"
        sections.append(_section("Commits, the newest first", table))
    if story.trouble:
        sections.append(_section("Trouble", _table((), [(text,) for text in story.trouble])))
    text = headline(found)
    return _PAGE.format(
        title=escape(story.vault or "A run"),
        how=escape(f"{text[0].upper()}{text[1:]}"),
        sections="\n".join(sections),
        version=escape(__version__),
        now=moment_text(story.now),
    )


def _attempts(found: dict[str, Any]) -> list[tuple[object, ...]]:
    """Return the rows of attempts, each with what was decided at its end."""
    rows = attempt_rows(found)
    told = [". ".join(filter(None, (item["detail"], item["decision"]))) for item in found["attempts"]]
    return [(*row[:-1], text) for row, text in zip(rows, told, strict=True)]


def _start(took: dict[str, float], stages: Sequence[str]) -> list[str]:
    """Return the cells of one start: seconds of each stage, and of all that were seen."""
    return [f"{took[name]:.2f} s" if name in took else "" for name in stages] + [
        f"{sum(took.values()):.2f} s"
    ]


def _section(title: str, content: str) -> str:
    heading = f"<h2>{escape(title)}</h2>\n" if title else ""
    return f'<section>\n{heading}<div class="scroll">{content}</div>\n</section>'


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]], kind: str = "") -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    labels = [f' data-label="{escape(text)}"' for text in headings] if kind == "attempts" else None
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td{labels[number] if labels else ''}>{escape(str(cell))}</td>"
            for number, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<table class="{kind}">' + (f"<tr>{head}</tr>\n" if head else "") + f"{body}</table>"
