"""`vl push`: a checkpoint's model goes to the Hugging Face Hub, verified on its way, in one commit there."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from vaultlayer_hf.base.text import bytes_bar, size_text
from vaultlayer_hf.cli.common import (
    CheckpointArgument,
    DebugOption,
    ExitCode,
    JsonOption,
    fail,
    on_terminal,
    one_line_errors,
)
from vaultlayer_hf.cli.named_vault import open_at
from vaultlayer_hf.cli.tables import print_table, say
from vaultlayer_hf.errors import MissingExtraError
from vaultlayer_hf.vault.reader.pull import has_weights, is_for_inference

T = TypeVar("T")
RepositoryArgument = Annotated[
    str, typer.Argument(metavar="REPOSITORY", help="Of the Hub: user/model. Made where it isn't there.")
]
PrivateOption = Annotated[bool, typer.Option("--private", help="A repository that is made is private.")]
WholeOption = Annotated[
    bool, typer.Option("--whole", help="Also the training's state: optimizer, schedule, random numbers.")
]
BranchOption = Annotated[
    str | None, typer.Option("--branch", metavar="NAME", help="A branch that is there; default: main.")
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="List what would be sent. Nothing is copied, and the Hub isn't asked."),
]
_TRIES = 5
_FIRST_WAIT = 1.0
"""Seconds before the second try; it doubles with each further one."""


def push(
    checkpoint: CheckpointArgument,
    repository: RepositoryArgument,
    private: PrivateOption = False,
    whole: WholeOption = False,
    branch: BranchOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Push a checkpoint's model to the Hugging Face Hub, in one commit; trouble of the network is retried.

    What from_pretrained reads is sent; --whole sends all. The token is that of `hf auth login`, or HF_TOKEN.

    Example: vl push s3://bucket/my-run@best me/my-model --private
    """
    with one_line_errors(debug), open_at(checkpoint) as (vault, commit):
        if not _is_repository(repository):
            raise fail(
                ExitCode.USAGE,
                f"{repository!r} is no repository of the Hub: write user/model. `vl pull` copies into a folder",
            )
        manifest = vault.manifest(commit)
        if not has_weights(manifest):
            raise fail(
                ExitCode.FAILED,
                f"step {commit.step} of {vault.uri} holds no weights that from_pretrained reads, only shards of a "
                "distributed training: make one file of them first",
            )
        wanted = (lambda path: True) if whole else is_for_inference
        sent = [entry for entry in manifest.files if wanted(entry.path)]
        size = sum(entry.size for entry in sent)
        found: dict[str, Any] = {
            "vault": vault.uri,
            "step": commit.step,
            "number": commit.number,
            "repository": repository,
        }
        if dry_run:
            found |= {"files": {entry.path: entry.size for entry in sent}, "bytes": size}
            _show_plan(found, as_json)
            return
        hub = _hub()
        api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
        with tempfile.TemporaryDirectory(prefix="vl-push-") as name:
            folder = Path(name) / f"checkpoint-{commit.step}"
            with bytes_bar(size, f"step {commit.step}", shown=on_terminal(), leave=False) as bar:
                vault.pull(commit, folder, bar.update, only=wanted)
            _retried(hub, lambda: api.create_repo(repository, private=private, exist_ok=True), repository)
            done = _retried(
                hub,
                lambda: api.upload_folder(
                    repo_id=repository,
                    folder_path=folder,
                    revision=branch,
                    commit_message=f"Step {commit.step} of a training",
                ),
                repository,
            )
        found["url"] = str(getattr(done, "commit_url", ""))
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        typer.echo(f"step {commit.step} of {vault.uri} is in {repository}: {found['url']}")


def _is_repository(name: str) -> bool:
    """Tell whether a name is ``user/model``, by the rule of huggingface_hub's ``validate_repo_id``."""
    fits = re.fullmatch(r"\b[\w\-.]+\b/\b[\w\-.]{1,96}\b", name)
    return fits is not None and "--" not in name and ".." not in name and not name.endswith(".git")


def _show_plan(found: dict[str, Any], as_json: bool) -> None:
    """Print what would be sent, for a person or for a program."""
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [(path, size_text(size)) for path, size in found["files"].items()]
    print_table(("file", "size"), rows, right=[1])
    what = f"step {found['step']} of {found['vault']}"
    say(f"{size_text(found['bytes'])} of {what} would be sent to {found['repository']}.")


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("vl push needs huggingface_hub: pip install huggingface_hub") from error
    return huggingface_hub


def _retried(hub: Any, call: Callable[[], T], repository: str) -> T:
    """Do a call of the Hub's, again where its trouble passes: what was sent already isn't sent again.

    Raises typer.Exit where the Hub refuses, or doesn't answer for as long as is waited.
    """
    wait = _FIRST_WAIT
    for left in reversed(range(_TRIES)):
        try:
            return call()
        except hub.errors.HfHubHTTPError as error:
            status = getattr(getattr(error, "response", None), "status_code", 0)
            passes, why = status == 429 or status >= 500, f"the Hub answered {status}"
            if status in (401, 403):
                why = "the Hub refuses: log in with `hf auth login`, with a token that may write there"
        except hub.errors.OfflineModeIsEnabled as error:
            raise fail(ExitCode.USAGE, "HF_HUB_OFFLINE is set, so nothing can be pushed: unset it") from error
        except Exception as error:
            passes = isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS
            if not passes:
                raise
            why = f"the Hub doesn't answer: {str(error).strip().partition(chr(10))[0][:200]}"
        if not passes or not left:
            raise fail(ExitCode.STORE, f"{repository}: {why}")
        typer.echo(f"vl: {why}, it is tried again in {wait:.0f} s", err=True)
        time.sleep(wait)
        wait *= 2
    raise AssertionError("unreachable")


_CLIENTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3")
"""Packages whose errors mean that the network failed, in the releases of huggingface_hub that there are."""
