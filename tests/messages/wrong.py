"""Wrong use: what people give where a vault, a folder, a setting or a call is meant, and what they are told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.messages.situations import begin, situation
from tests.trainer.kit import model, trainer
from tests.vault.vaults import start, train
from vaultlayer_hf import Checkpointer, Settings, VaultLayerCallback, open_vault, resumable
from vaultlayer_hf.stores.uri import parse_vault

CHAPTER = "Wrong use, from Python"


@contextmanager
def _variables(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _plain(name: str, call: Callable[[Path], Any], **values: str) -> None:
    """Register what is said to one call; an error of another kind than ours is a message, too."""

    def say(folder: Path) -> list[str]:
        with _variables(**values):
            try:
                call(folder)
            except (TypeError, AttributeError) as error:
                return [f"{type(error).__name__}: {error}"]
        return []

    situation(CHAPTER, name)(say)


def _linear() -> dict[str, Any]:
    module = torch.nn.Linear(2, 2)
    return {"model": module, "optimizer": torch.optim.SGD(module.parameters(), 0.1)}


for _given in ("", True, {"vault": "s3://bucket/run"}, ["s3://bucket/run"], 500, Path("s3://bucket/run")):
    _plain(f"Trainer(resume={_given!r})", lambda folder, given=_given: trainer(folder / "out", resume=given))
_plain("VaultLayerCallback(True), and no variable", lambda folder: VaultLayerCallback(True))  # type: ignore[arg-type]
_plain("Checkpointer({}): a dict", lambda folder: Checkpointer({}))  # type: ignore[arg-type]
_plain("resume=r'C:\\vaults\\run'", lambda folder: parse_vault(r"C:\vaults\run"))
_plain("resumable() of an object", lambda folder: resumable(model()))
_plain("a misspelt setting", lambda folder: Settings(vault="run", keep_lats=3))  # type: ignore[call-arg]
_plain("VAULTLAYER_KEEP_BEST=maybe", lambda folder: Settings(vault="run"), VAULTLAYER_KEEP_BEST="maybe")
_plain("VAULTLAYER_GRACE=soon", lambda folder: Settings(vault="run"), VAULTLAYER_GRACE="soon")
_plain("VAULTLAYER_KEEP_LAST=few", lambda folder: Settings(vault="run"), VAULTLAYER_KEEP_LAST="few")
_plain("save_every=0", lambda folder: Settings(vault="run", save_every=0))
_plain(
    "save_every='5 minutes and a bit'", lambda folder: Settings(vault="run", save_every="5 minutes and a bit")
)
_plain("fork of the run's own vault", lambda folder: Settings(vault=f"{folder}/run", fork=f"{folder}/run@3"))


@situation(CHAPTER, "VAULTLAYER_KEEPLAST: a misspelt variable")
def misspelt(folder: Path) -> None:
    with _variables(VAULTLAYER_KEEPLAST="5"):
        start(str(folder / "vault"), folder / "out")


@situation(CHAPTER, "resume= and a VaultLayerCallback as well")
def twice(folder: Path) -> None:
    trainer(folder / "out", resume=folder / "vault", callbacks=[VaultLayerCallback(str(folder / "vault"))])


@situation(CHAPTER, "save_only_model=True")
def only_model(folder: Path) -> None:
    for steps in (2, 4):
        trainer(folder / "out", resume=folder / "vault", save_only_model=True, max_steps=steps).train()


@situation(CHAPTER, "train(resume_from_checkpoint='auto')")
def named(folder: Path) -> None:
    trainer(folder / "out", resume=folder / "vault").train(resume_from_checkpoint="auto")


@situation(CHAPTER, "train(resume_from_checkpoint='out/checkpoint-4'), which isn't there, on an empty vault")
def named_own(folder: Path) -> None:
    run = trainer(folder / "out", resume=folder / "vault", max_steps=1)
    run.train(resume_from_checkpoint=str(folder / "out" / "checkpoint-4"))


@situation(CHAPTER, "pull() without a Trainer")
def no_trainer(folder: Path) -> None:
    VaultLayerCallback(str(folder / "vault")).pull()


@situation(CHAPTER, "a vault inside output_dir")
def inside(folder: Path) -> None:
    trainer(folder / "out", resume=folder / "out" / "vault", max_steps=1).train()


@situation(CHAPTER, "output_dir inside the vault")
def around(folder: Path) -> None:
    start(str(folder / "vault"), folder / "vault" / "out")


@situation(CHAPTER, "a checkpoint's folder as the vault")
def checkpoint_as_vault(folder: Path) -> None:
    trainer(folder / "out", max_steps=2, resume=None).train()
    start(str(folder / "out" / "checkpoint-2"), folder / "other")


@situation(CHAPTER, "a vault that a newer release has written")
def newer(folder: Path) -> None:
    train(str(folder / "vault"), folder / "out", 2)
    begin()
    last = sorted((folder / "vault" / "log").glob("*.json"))[-1]
    last.write_bytes(last.read_bytes().replace(b'"format_version": 1', b'"format_version": 9').replace(
        b'"format_version":1', b'"format_version":9'
    ))  # fmt: skip
    start(str(folder / "vault"), folder / "other")


@situation(CHAPTER, "open_vault() where there is none")
def nothing_there(folder: Path) -> None:
    open_vault(folder / "vault")


@situation(CHAPTER, "step() before resume()")
def step_first(folder: Path) -> None:
    Checkpointer(str(folder / "vault"), **_linear()).step()


@situation(CHAPTER, "save_every='daily' of a Checkpointer")
def daily(folder: Path) -> None:
    Checkpointer(str(folder / "vault"), save_every="daily", **_linear())


_plain(
    "an optimizer that can't be saved",
    lambda folder: _saved(folder, model=torch.nn.Linear(1, 1), optimizer=3),
)
_plain("a Checkpointer of nothing", lambda folder: _saved(folder).resume())
_plain("steps() without a loader", lambda folder: _begun(folder).steps())
_plain("add() behind resume()", lambda folder: _begun(folder).add("ema", torch.nn.Linear(1, 1)))


def _saved(folder: Path, **more: Any) -> Checkpointer:
    return Checkpointer(str(folder / "vault"), output_dir=folder / "out", **more)


def _begun(folder: Path) -> Checkpointer:
    begun = _saved(folder, **_linear())
    begun.resume()
    begin()
    return begun
