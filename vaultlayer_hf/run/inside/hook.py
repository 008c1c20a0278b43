"""What `vl run` does to ``transformers.Trainer`` in the processes that it starts; the script stays as it is.

Called by startup/sitecustomize.py once transformers.trainer has been imported, before anybody has its names. The
class itself is changed, so that every subclass has it:

    __init__               a smaller micro-batch, where `vl run` asks for one
    train                  on the vault, as ``resume=`` does it (vaultlayer_hf.trainer.trainer.train_on), and reported
    _save_checkpoint       makes way, as ``resume=`` does it
    training_step          looks at the loss
    _inner_training_loop   a checkpoint of another micro-batch doesn't bring its own back
    _maybe_log_save_evaluate says that what comes now takes as long as it takes

and VaultLayerCallback.pull, which goes back to the step that `vl run` names.

A Trainer that has a vault already (``resume=`` or a VaultLayerCallback) keeps it, and is only reported. The second
Trainer of a process that trains gets a vault of its own beside the first one's: ``VAULT-2``, and so on.
"""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.run.inside.micro_batch import divide
from vaultlayer_hf.run.inside.watch import TrainingMonitor
from vaultlayer_hf.run.report import AT_VARIABLE, DIVIDE_VARIABLE, INSERT_VARIABLE, report
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.state.layouts import missing_files
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.trainer.callback import VaultLayerCallback
from vaultlayer_hf.trainer.trainer import Explicit, make_way, train_on

_count = 0
"""How many Trainers of this process have got a vault here."""


def install(trainer: type[Any]) -> None:
    """Change the class; once."""
    if "_vaultlayer_run" in trainer.__dict__:
        return
    trainer._vaultlayer_run = True
    stacks = report.open()
    report.note("hooked", pid=os.getpid(), world_size=int(os.environ.get("WORLD_SIZE", "1")), stacks=stacks)
    report.watch_uncaught()
    changes = (
        ("__init__", _init),
        ("train", _train),
        ("_save_checkpoint", _save_checkpoint),
        ("training_step", _training_step),
        ("_inner_training_loop", _inner_training_loop),
        ("_maybe_log_save_evaluate", _between_steps),
    )
    for cls, name, wrap in (*((trainer, *change) for change in changes), (VaultLayerCallback, "pull", _pull)):
        original = cls.__dict__.get(name)
        if original is not None:
            setattr(cls, name, functools.wraps(original)(wrap(original)))


def _init(original: Any) -> Any:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        given = kwargs["args"] if "args" in kwargs else args[1] if len(args) > 1 else None
        if given is not None:
            divide(given, int(os.environ.get(DIVIDE_VARIABLE, "1")))
        original(self, *args, **kwargs)

    return __init__


def _inner_training_loop(original: Any) -> Any:
    def _inner_training_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        # transformers 4 takes the micro-batch that the checkpoint was written with.
        if getattr(self.args, "_vaultlayer_divided", False) and not self.args.auto_find_batch_size:
            self._train_batch_size = self.args.train_batch_size
            if "batch_size" in kwargs:
                kwargs["batch_size"] = self.args.train_batch_size
        return original(self, *args, **kwargs)

    return _inner_training_loop


def _training_step(original: Any) -> Any:
    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        watch = self.__dict__.get("_vaultlayer_watch")
        if watch is not None:
            watch.saw(loss)
        return loss

    return training_step


def _between_steps(original: Any) -> Any:
    def _maybe_log_save_evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
        report.beat(phase="between")
        try:
            return original(self, *args, **kwargs)
        finally:
            report.beat(phase="train")

    return _maybe_log_save_evaluate


def _save_checkpoint(original: Any) -> Any:
    def _save_checkpoint(self: Any, model: Any, trial: Any, *args: Any, **kwargs: Any) -> Any:
        vault = self.__dict__.get("_vaultlayer_inserted")
        if vault is not None:
            make_way(vault, self, trial)
        return original(self, model, trial, *args, **kwargs)

    return _save_checkpoint


def _train(original: Any) -> Any:
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.__dict__.get("_vaultlayer_training"):
            return original(self, *args, **kwargs)
        bound = original.__get__(self, type(self))
        self._vaultlayer_training = True
        try:
            vault, inserted = _vault_of(self)
            _watch(self, vault)
            if vault is not None and inserted:
                output = train_on(
                    vault,
                    self,
                    bound,
                    args,
                    kwargs,
                    choose=lambda its, explicit: _choose(self, its, explicit),
                )
            else:
                output = bound(*args, **kwargs)
        except BaseException as error:
            report.error(error)
            raise
        finally:
            self._vaultlayer_training = False
        report.note("trained", step=self.state.global_step)
        report.beat(phase="done")
        return output

    return train


def _vault_of(trainer: Any) -> tuple[VaultLayerCallback | None, bool]:
    """Return a Trainer's vault and whether it was put in here; None where it is to have none."""
    global _count
    inserted = trainer.__dict__.get("_vaultlayer_inserted")
    if inserted is not None:
        return inserted, True
    callbacks = trainer.callback_handler.callbacks
    own = next((one for one in callbacks if isinstance(one, VaultLayerCallback)), None)
    if own is not None:
        return own, False
    settings = Settings()
    if os.environ.get(INSERT_VARIABLE, "1") == "0" or not settings.vault:
        return None, False
    _count += 1
    if _count > 1:
        address = parse_vault(settings.vault)
        settings = replace(settings, vault=f"{address.uri}-{_count}")
    vault = VaultLayerCallback(settings)
    vault.bind(trainer.args, trainer.model, trainer.callback_handler)
    vault.stops_when_finished = True
    trainer.add_callback(vault)
    trainer._vaultlayer_inserted = vault
    return vault, True


def _pull(original: Any) -> Any:
    def pull(self: VaultLayerCallback) -> Any:
        named = os.environ.get(AT_VARIABLE)
        address = parse_vault(named) if named else None
        if address is not None and address.step is not None and address.uri == self.vault.uri:
            self.go_on_from(address.step)
        return original(self)

    return pull


def _watch(trainer: Any, vault: VaultLayerCallback | None) -> None:
    if "_vaultlayer_watch" not in trainer.__dict__:
        trainer._vaultlayer_watch = watch = TrainingMonitor(vault.vault.uri if vault is not None else None)
        # Ahead of the others: a training that is ended for its loss is neither saved nor noted as finished.
        trainer.callback_handler.callbacks = [watch, *trainer.callback_handler.callbacks]
    if vault is not None and not getattr(vault, "_vaultlayer_heard", False):
        vault._vaultlayer_heard = True  # type: ignore[attr-defined]
        vault.events.listen(report.hear)


def _choose(trainer: Any, vault: VaultLayerCallback, explicit: Explicit) -> Explicit:
    """Claim the vault and return what to resume from: its newest checkpoint, before what the script names.

    The command is started again as it stands: a checkpoint that it names is where the run once began.
    """
    path = vault.pull()
    if explicit is None or explicit is False:
        return path or explicit
    if path is not None:
        vault.events.info(
            EventKind.NOTICE,
            f"the vault wins over train(resume_from_checkpoint={explicit!r}): it holds {Path(path).name}, which this "
            "run goes on from; to start from another one, name an empty vault",
        )
        return path
    named = _newest_here(trainer) if explicit is True else Path(explicit)
    lacking = _lacking(trainer, named)
    if lacking:
        vault.events.warn(
            EventKind.NOTICE,
            f"the vault is empty, and train(resume_from_checkpoint={explicit!r}) can't be followed, so the run starts "
            f"fresh: {lacking}",
        )
        return None
    vault.events.info(
        EventKind.NOTICE,
        f"the vault is empty: train(resume_from_checkpoint={explicit!r}) is followed, as the script says",
    )
    return explicit


def _newest_here(trainer: Any) -> Path | None:
    from transformers.trainer_utils import get_last_checkpoint

    output_dir = str(trainer.args.output_dir)
    found: str | None = cast(Any, get_last_checkpoint)(output_dir) if os.path.isdir(output_dir) else None
    return Path(found) if found else None


def _lacking(trainer: Any, folder: Path | None) -> str:
    """Return why a folder of this run's own output can't be resumed from; empty for any other folder.

    A kill in the middle of a save leaves half a checkpoint, and stock transformers loads it in silence.
    """
    if folder is None:
        return f"{trainer.args.output_dir} holds no checkpoint"
    if folder.absolute().parent != Path(trainer.args.output_dir).absolute():
        return ""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    missing = missing_files(paths, trainer.args.world_size)
    return f"{folder.name} lacks {', '.join(missing)}" if missing else ""
