"""Vaults for tests, written by a real Session: small folders that are laid out as the Trainer's are."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.any_files import AnyFiles
from vaultlayer_hf import Settings
from vaultlayer_hf.base.events import Event, Events
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.layouts import refusal
from vaultlayer_hf.state.model_identity import ModelIdentity, Parameters
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.trainer.layout import STATE, localise, missing_files, wanted_files

PARAMETERS: Parameters = (("first.weight", (4, 4), "float32"),)
FILES = (
    "model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    STATE,
    "training_args.bin",
    "tokenizer/vocab.bin",
)
"""Every file of a checkpoint; the last lies in a folder, and it and training_args.bin are the same each time."""


def write_checkpoint(output: Path, step: int) -> Path:
    """Write ``checkpoint-<step>``; its content follows from the step."""
    folder = output / f"checkpoint-{step}"
    for name in FILES:
        same = name in ("training_args.bin", "tokenizer/vocab.bin")
        data = random.Random(f"{name} {0 if same else step}").randbytes(3000)
        if name == STATE:
            data = json.dumps({"global_step": step, "best_model_checkpoint": None}).encode()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Heard:
    """Events that happened."""

    events: list[Event] = field(default_factory=list)

    def reasons(self, kind: str) -> str:
        """Return the messages of one kind, a line each."""
        return "\n".join(event.message for event in self.events if event.kind == kind)


def a_session(
    vault: str, output: Path, *, store: Store | None = None, at_step: int | None = None, **settings: object
) -> tuple[Session, Heard]:
    """Return a session and what it tells."""
    events, heard = Events(), Heard()
    events.listen(heard.events.append)
    options = {"resume_timeout": 5.0, "flush_timeout": 20.0, **settings}
    made = Settings(vault=vault, **options)  # type: ignore[arg-type]
    return Session(made, output, events=events, store=store, at_step=at_step), heard


class TrainersFiles(CheckpointFiles):
    """What a Trainer answers about its checkpoints' files, without a Trainer."""

    def __init__(self, parameters: Parameters = PARAMETERS) -> None:
        self._model = ModelIdentity(parameters)

    @property
    def model(self) -> ModelIdentity:
        return self._model

    def missing(self, paths: set[str], *, world_size: int) -> list[str]:
        return missing_files(paths, world_size)

    def wanted(self, paths: set[str], ranks: tuple[int, ...], *, world_size: int) -> set[str]:
        return wanted_files(paths, ranks, world_size)

    def refusal(self, paths: set[str], *, written: int, now: int) -> str:
        return refusal(paths, written, now)

    def localised(self, folder: Path, output_dir: Path, versions: Mapping[str, str]) -> dict[str, bytes]:
        data, _ = localise(folder, str(output_dir))
        return {STATE: data} if data else {}


def train(vault: str, output: Path, *steps: int, best: int | None = None, **settings: object) -> Heard:
    """Resume, save at each step, each committed before the next, and end without a finish; ``best``: the best step."""
    session, heard = a_session(vault, output, **settings)
    training = Training(session)
    resume(session, TrainersFiles())
    for step in steps:
        folder = write_checkpoint(output, step)
        training.save(Save(folder, step, AnyFiles(), parameters=PARAMETERS, best_step=best))
        assert training.flush(), heard.events
    training.close()
    return heard


def start(vault: str, output: Path, **settings: object) -> tuple[Path | None, Heard]:
    """Resume and stop again; return where it went on, and what was told."""
    session, heard = a_session(vault, output, **settings)
    training = Training(session)
    try:
        return resume(session, TrainersFiles()), heard
    finally:
        training.close()


def tree(folder: Path, *, without: tuple[Path, ...] = ()) -> dict[str, str]:
    """Return a digest of every file, link and folder below ``folder``, but for what lies in ``without``."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if any(path == skipped or skipped in path.parents for skipped in without):
            continue
        if path.is_symlink():
            found[str(path)] = f"link {path.readlink()}"
        else:
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found
