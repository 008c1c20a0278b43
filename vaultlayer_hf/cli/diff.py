"""`vl diff`: two checkpoints side by side: step, loss, settings, files. Reads three small files of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.cli.arguments import read_arguments
from vaultlayer_hf.cli.common import DebugOption, JsonOption, one_line_errors, when_text
from vaultlayer_hf.cli.figures import logged, parsed
from vaultlayer_hf.cli.named_vault import open_at
from vaultlayer_hf.cli.tables import print_table, say

if TYPE_CHECKING:
    from vaultlayer_hf.vault.log.entry import Commit
    from vaultlayer_hf.vault.reader.vault import Vault

FirstArgument = Annotated[str, typer.Argument(metavar="VAULT@STEP", help="A checkpoint.")]
SecondArgument = Annotated[
    str,
    typer.Argument(
        metavar="VAULT[@STEP]", help="Another, of the same vault or any; without a step, the newest."
    ),
]
_STATE_SETTINGS = (
    "max_steps",
    "num_train_epochs",
    "train_batch_size",
    "save_steps",
    "eval_steps",
    "logging_steps",
)


def diff(
    first: FirstArgument, second: SecondArgument, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Compare two checkpoints: steps, loss, settings, versions and files.

    Example: vl diff s3://bucket/my-run@400 s3://bucket/my-run@500
    """
    with one_line_errors(debug), open_at(first) as one, open_at(second) as other:
        found = compare(_look(*one), _look(*other))
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            _print(found)


def _look(vault: Vault, commit: Commit) -> dict[str, Any]:
    """Return what is to be compared of a checkpoint. Raises CorruptError, StoreError."""
    manifest = vault.manifest(commit)
    state = parsed(vault.read(commit, "trainer_state.json"))
    settings = {name: state[name] for name in _STATE_SETTINGS if name in state}
    settings |= read_arguments(vault.read(commit, "training_args.bin") or b"") or {}
    settings |= {f"model {name}": value for name, value in parsed(vault.read(commit, "config.json")).items()}
    return {
        "vault": vault.uri,
        "step": commit.step,
        "number": commit.number,
        "token": commit.token,
        "time": commit.time,
        "bytes": commit.bytes,
        "world_size": manifest.world_size,
        "versions": manifest.versions,
        "epoch": state.get("epoch"),
        "losses": {
            item["step"]: item["loss"]
            for item in [
                *logged(state),
                parsed(vault.read(commit, "vaultlayer.json")),
            ]  # a Trainer's, a loop's
            if isinstance(item.get("step"), int) and isinstance(item.get("loss"), (int, float))
        },
        "settings": settings,
        "files": {entry.path: (entry.size, entry.digest) for entry in manifest.files},
    }


def compare(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return what `vl diff --json` prints of two looks. Pure."""
    left_out = ("losses", "settings", "files", "versions")
    both = [{name: look[name] for name in look if name not in left_out} for look in (one, other)]
    for side, look in zip(both, (one, other), strict=True):
        steps = sorted(look["losses"])
        side["loss"] = look["losses"][steps[-1]] if steps else None
        side["loss_step"] = steps[-1] if steps else None
    shared = sorted(one["losses"].keys() & other["losses"].keys())
    files = []
    for path in sorted(one["files"].keys() | other["files"].keys()):
        first, second = one["files"].get(path), other["files"].get(path)
        if first != second:
            change = "changed" if first and second else "added" if second else "removed"
            sizes = [side[0] if side else None for side in (first, second)]
            files.append({"path": path, "change": change, "bytes": sizes})
    return {
        "first": both[0],
        "second": both[1],
        "same_vault": one["vault"] == other["vault"],
        "losses_shared": len(shared),
        "losses_part_at": next(
            (step for step in shared if one["losses"][step] != other["losses"][step]), None
        ),
        "settings": _differing(one["settings"], other["settings"]),
        "versions": _differing(one["versions"], other["versions"]),
        "files": files,
        "files_same": len(one["files"].keys() | other["files"].keys()) - len(files),
    }


def _differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[Any]]:
    """Return [first, second] of each name whose values differ; None where one lacks it."""
    names = sorted(one.keys() | other.keys())
    return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}


def _print(found: dict[str, Any]) -> None:
    one, other = found["first"], found["second"]

    def loss(side: dict[str, Any]) -> str:
        return "none logged" if side["loss"] is None else f"{side['loss']:.4f} (step {side['loss_step']})"

    def epoch(side: dict[str, Any]) -> str:
        return f"{side['epoch']:.2f}" if isinstance(side["epoch"], (int, float)) else ""

    rows: list[tuple[object, ...]] = [] if found["same_vault"] else [("vault", one["vault"], other["vault"])]
    rows += [
        ("committed (UTC)", when_text(one["time"]), when_text(other["time"])),
        ("log entry, token", *(f"{side['number']}, {side['token']}" for side in (one, other))),
        ("epoch", epoch(one), epoch(other)),
        ("loss", loss(one), loss(other)),
        ("size", size_text(one["bytes"]), size_text(other["bytes"])),
        ("world size", one["world_size"], other["world_size"]),
    ]
    differing = {**found["versions"], **found["settings"]}
    rows += [(name, _value(first), _value(second)) for name, (first, second) in differing.items()]
    rows += [(item["path"], _cell(item, 0), _cell(item, 1)) for item in found["files"]]
    print_table(("", f"step {one['step']}", f"step {other['step']}"), rows, fold=[0, 1, 2])
    say("")
    shared, parting = found["losses_shared"], found["losses_part_at"]
    if shared:
        same = (
            f"equal at all {shared} steps that both have logged"
            if parting is None
            else f"part at step {parting}"
        )
        say(f"Loss histories: {same}.")
    kinds = ("changed", "added", "removed")
    counts = {kind: sum(item["change"] == kind for item in found["files"]) for kind in kinds}
    told = "".join(f", {count} {kind}" for kind, count in counts.items() if count)
    say(f"Settings: {_count(found['settings'])}. Versions: {_count(found['versions'])}.")
    say(f"Files: {found['files_same']} the same{told}.")


def _count(differing: dict[str, Any]) -> str:
    return f"{len(differing)} differ" if differing else "the same"


def _value(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _cell(item: dict[str, Any], side: int) -> str:
    size = item["bytes"][side]
    if size is None:
        return "not there"
    return size_text(size) + (f" {item['change']}" if side or item["change"] == "removed" else "")
