"""`vl status`: how a run is: step, speed, last commit, exposure, attempts. Reads only."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.base.text import duration_text
from vaultlayer_hf.cli.common import DebugOption, JsonOption, moment_text, one_line_errors
from vaultlayer_hf.cli.gather import TargetArgument, await_target, find_target, gather
from vaultlayer_hf.cli.jobs import ask
from vaultlayer_hf.cli.tables import print_table, say
from vaultlayer_hf.run.story import NO_JOURNAL
from vaultlayer_hf.state.tracker_runs import runs_text

if TYPE_CHECKING:
    from vaultlayer_hf.run.engines.jobs.base import Job
    from vaultlayer_hf.run.story import RunStory

WatchOption = Annotated[
    bool, typer.Option("--watch", help="Show it again every 2 seconds, until the run ends.")
]
_EVERY = 2.0
"""Seconds."""
_NEAR = 3
"""Trainings before and after the one that is shown which are named."""
_UNKNOWN = "not known"
_UNSEEN = (
    f"{_UNKNOWN}: the vault's log tells of commits, and no journal of a `vl run` with the steps was found"
)
_NOT_YET = f"{_UNKNOWN}: no attempt has come to train since the last death"


def status(
    target: TargetArgument = None,
    watch: WatchOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show how a run is: step, speed, last commit, exposure, attempts.

    With --watch it waits for the run to begin; with --watch and --json, one line of JSON each time.

    Example: vl status s3://bucket/my-run --watch
    """
    with one_line_errors(debug):
        if watch:
            await_target(target, lambda message: typer.echo(f"vl: {message}", err=True))
        while True:
            where = find_target(target)
            story = gather(where)
            found = describe(story)
            add_job(found, where.job)
            if as_json:
                typer.echo(json.dumps(found, indent=None if watch else 2))
            else:
                if watch:
                    typer.echo("\x1b[H\x1b[2J", nl=False)  # typer leaves it out where nobody watches
                _print(found)
            if not watch or found["state"] in ("finished", "stopped"):
                return
            time.sleep(_EVERY)


def describe(story: RunStory) -> dict[str, Any]:
    """Return what `vl status --json` prints. Times are seconds since the epoch, spans seconds."""
    last = story.commits[-1] if story.commits else story.earlier
    exposure = story.exposure
    trains = bool(story.attempts) and story.state == "running" and not story.over
    speed = story.attempts[-1].speed if trains else None
    left = None
    if speed and story.max_steps is not None and story.step is not None:
        left = (story.max_steps - story.step) / speed
    return {
        "vault": story.vault,
        "state": story.state,
        "reason": story.reason,
        "step": story.step,
        "max_steps": story.max_steps,
        "steps_per_second": speed,
        "seconds_left": left,
        "commits": len(story.commits),
        "last_commit_step": int(last[1]) if last else None,
        "last_commit_time": last[0] if last else None,
        "exposure_seconds": exposure[0] if exposure else None,
        "exposure_steps": exposure[1] if exposure else None,
        "lost_steps": story.lost_steps,
        "goodput": story.goodput,
        "seconds": story.end - story.begin,
        "attempts": [
            {
                "number": attempt.number,
                "begin": attempt.begin,
                "end": attempt.end,
                "host": attempt.host,
                "began_at": attempt.began_at,
                "step": attempt.step,
                "lost": attempt.lost,
                "cause": attempt.cause,
                "detail": attempt.detail,
                "decision": attempt.decision,
                "start": dict(attempt.start),
            }
            for attempt in story.attempts
        ],
        "watched": all(attempt.watched for attempt in story.attempts),
        "trackers": {name: dict(run) for name, run in story.trackers.items()},
        "trainings": [
            {"vault": one.vault, "step": one.step, "finished": one.over} for one in story.trainings
        ],
        "trouble": list(story.trouble),
        "job": None,
    }


def add_job(found: dict[str, Any], job: Job | None) -> None:
    """Add to what ``describe`` returns how the job is that an engine has taken, and what that means for the run.

    A run whose `vl run` is gone isn't over where its engine will start it again.
    """
    if job is None:
        return
    state = ask(job)
    found["job"] = {
        "name": str(job),
        "state": state.state,
        "detail": state.detail,
        "nodes": state.nodes,
        "restarts": state.restarts,
        "time": job.time,
    }
    if found["state"] in ("stopped", "unknown") and state.alive:
        found["state"], found["reason"] = state.state, f"{job} is {state.state}"
    elif found["state"] == "unknown" and state.state in ("finished", "stopped"):
        found["state"], found["reason"] = "stopped", f"{job} has ended: {state.detail}"


def job_text(job: dict[str, Any]) -> str:
    """Return how a job is in one sentence."""
    text = f"{job['name']}: {job['state']}" + (f" on {job['nodes']}" if job["nodes"] else "")
    text += f"; {job['detail']}" if job["detail"] and job["detail"].lower() != job["state"] else ""
    again = job["restarts"]
    return text + (f"; started again {again} time{'s' if again > 1 else ''}" if again else "")


def headline(found: dict[str, Any]) -> str:
    """Return how the run is in one sentence."""
    step = "no step yet" if found["step"] is None else f"step {found['step']}"
    of = f" of {found['max_steps']}" if found["max_steps"] is not None and found["step"] is not None else ""
    state = "not known whether it runs" if found["state"] == "unknown" else found["state"]
    text = f"{state}: {step}{of}"
    if found["steps_per_second"]:
        text += f", {found['steps_per_second']:.3g} steps/s"
    if found["seconds_left"] is not None:
        text += f", {duration_text(found['seconds_left'])} to go"
    return text if found["state"] == "running" or not found["reason"] else f"{text}; {found['reason']}"


def facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a person wants to know beside the headline: names and values."""
    rows = [("vault", str(found["vault"]))] if found["vault"] else []
    rows += [("job", job_text(found["job"]))] if found["job"] else []
    if found["last_commit_step"] is not None:
        count = f"{found['commits']} in all" if found["commits"] else "from before this run"
        when = f"{moment_text(found['last_commit_time'])} (UTC)"
        rows.append(("last commit", f"step {found['last_commit_step']}, {when}; {count}"))
    else:
        rows.append(("last commit", "none yet"))
    rows += _figures(found)
    if found["trackers"]:
        rows.append(("trackers", runs_text(found["trackers"])))
    return rows + _other_trainings(found)


def _other_trainings(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what else the run has trained: the nearest trainings before and after this one."""
    trainings = found["trainings"]
    place = next((number for number, one in enumerate(trainings) if one["vault"] == found["vault"]), None)
    if place is None:
        return []
    near = [("before it", one) for one in trainings[max(0, place - _NEAR) : place]]
    near += [("after it", one) for one in trainings[place + 1 : place + 1 + _NEAR]]
    rows = []
    for when, one in near:
        reached = "" if one["step"] is None else f" to step {one['step']}"
        over = "finished" if one["finished"] else "not finished"
        rows.append((when, f"this run trained {one['vault']}{reached} ({over}): vl status {one['vault']}"))
    if len(near) < len(trainings) - 1:
        rows.append(("", f"it has {len(trainings)} trainings: --json names the vaults of all"))
    return rows


def _figures(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures that follow from the steps; why some aren't known is said once, here or by the headline."""
    figures: dict[str, str | None] = {}  # None: not known
    if found["exposure_seconds"] is not None:
        cost = {"running": "; a death now would cost that", "restarting": " at the death"}
        steps, seconds = found["exposure_steps"], duration_text(found["exposure_seconds"])
        since = "the start" if found["last_commit_step"] is None else "the last commit"
        figures["exposure"] = (
            f"{seconds} and {steps} steps since {since}{cost.get(found['state'], ' at the end')}"
        )
    elif found["attempts"]:
        figures["exposure"] = None
    lost = found["lost_steps"]
    twice = "1 step was trained twice" if lost == 1 else f"{lost} steps were trained twice"
    if found["attempts"]:
        figures["lost work"] = None if lost is None else twice
    if lost is None or (found["goodput"] is None and not found["watched"]):
        figures["goodput"] = None
    elif found["goodput"] is not None:
        wall = duration_text(found["seconds"])
        figures["goodput"] = f"{found['goodput']:.1%} of {wall} went into steps that count"
    why = _NOT_YET if found["watched"] else _UNSEEN
    unsaid = iter([] if found["reason"] == NO_JOURNAL else [why])
    return [(name, next(unsaid, _UNKNOWN) if text is None else text) for name, text in figures.items()]


def attempt_rows(found: dict[str, Any]) -> list[tuple[object, ...]]:
    """Return a row for each attempt: number, began, from step, to step, lost, how it ended."""

    def known(value: object) -> object:
        return "" if value is None else value

    last = found["attempts"][-1] if found["attempts"] and found["state"] == "running" else None
    return [
        (
            item["number"],
            moment_text(item["begin"]),
            known(item["began_at"]),
            "no step" if item["step"] is None and item["end"] is not None else known(item["step"]),
            known(item["lost"]),
            item["cause"] or ("alive" if item is last else "not known"),
            item["detail"],
        )
        for item in found["attempts"]
    ]


ATTEMPT_HEADINGS = ("attempt", "began (UTC)", "from", "to step", "lost", "ended", "")


def _print(found: dict[str, Any]) -> None:
    text = headline(found)
    say(f"{text[0].upper()}{text[1:]}")
    print_table(("", ""), facts(found), fold=[1])
    if found["attempts"]:
        say("")
        _print_attempts(found)
    for trouble in found["trouble"]:
        typer.echo(f"vl: {trouble}", err=True)


def _print_attempts(found: dict[str, Any]) -> None:
    # One column less than in a report: in a terminal of 80 columns sentences need the room.
    rows = [(*row[:5], ": ".join(filter(None, map(str, row[5:])))) for row in attempt_rows(found)]
    print_table(ATTEMPT_HEADINGS[:6], rows, right=[0, 2, 3, 4], fold=[5], spare=[1, 4])
