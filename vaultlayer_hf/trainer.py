"""The one argument: ``resume=`` for transformers.Trainer and for any subclass of it.

The seam to transformers is small, because transformers moves: the public callback API, a wrap of
``train`` and a wrap of ``_save_checkpoint``.
"""

from __future__ import annotations

import functools
import inspect
import os
from pathlib import Path
from typing import Any, TypeVar

import transformers
from transformers.trainer_utils import TrainOutput

from vaultlayer_hf.callback import AlreadyFinishedError, VaultLayerCallback
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.settings import Settings

_T = TypeVar("_T")
Resume = str | os.PathLike[str] | bool | Settings | None

_DOC = """

One more argument:
    resume: where this run's checkpoints are kept, and from where it goes on: a vault URI
        (``s3://bucket/prefix``, ``file:///folder``, a path), ``URI@<step>`` for an older checkpoint, True for
        the vault that ``VAULTLAYER_VAULT`` names, or Settings. None or False: the Trainer as it is.
"""


def settings_for(resume: Resume) -> Settings | None:
    """Return the settings that a value of ``resume=`` means; None where it switches the vault off.

    Raises SettingsError.
    """
    if resume is None or resume is False:
        return None
    if isinstance(resume, Settings):
        return resume
    if resume is True:
        settings = Settings()
        if not settings.vault:
            raise SettingsError("resume=True means the vault that VAULTLAYER_VAULT names, and that isn't set")
        return settings
    return Settings(vault=os.fspath(resume))


class _ResumableMixin:
    """Sits in front of a Trainer class: adds the argument, the callback and the two wraps."""

    _vaultlayer: VaultLayerCallback | None = None
    _vaultlayer_trained = False

    def __init__(self, *args: Any, resume: Resume = None, **kwargs: Any) -> None:
        settings = settings_for(resume)
        vault = VaultLayerCallback(settings) if settings is not None else None
        super().__init__(*args, **kwargs)
        trainer: Any = self
        if vault is not None:
            vault.bind(trainer.args, trainer.model, trainer.callback_handler)
            vault.stops_when_finished = True
            trainer.add_callback(vault)
            self._vaultlayer = vault

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, from the newest complete checkpoint of the vault where there is one; else as transformers does."""
        vault = self._vaultlayer
        if vault is None:
            return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]
        trial = kwargs.get("trial", args[0] if args else None)
        if trial is not None or self._vaultlayer_trained:
            why = "a hyperparameter search" if trial is not None else "a second train() of one Trainer"
            with vault.paused(f"{why} doesn't fit one vault: trained as stock, nothing of it is committed"):
                return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]
        try:
            if resume_from_checkpoint is None or resume_from_checkpoint is False:
                resume_from_checkpoint = vault.pull()
            else:
                vault.start(resume_from_checkpoint)
            self._vaultlayer_trained = True
            return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]
        except AlreadyFinishedError:
            return self._vaultlayer_done(vault)
        finally:
            vault.close()

    def _save_checkpoint(self, model: Any, trial: Any, *args: Any, **kwargs: Any) -> Any:
        trainer: Any = self
        if self._vaultlayer is not None:
            folder = f"checkpoint-{trainer.state.global_step}"
            self._vaultlayer.before_save(Path(trainer._get_output_dir(trial=trial)) / folder)
        return super()._save_checkpoint(model, trial, *args, **kwargs)  # type: ignore[misc]

    def _vaultlayer_done(self, vault: VaultLayerCallback) -> TrainOutput:
        """End a train() whose checkpoint is already where training would end: stock would train one more step."""
        trainer: Any = self
        trainer.is_in_train = False
        metrics = vault.say_finished(trainer.state)
        if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
            trainer._load_best_model()
        trainer.control = trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
        return TrainOutput(trainer.state.global_step, metrics.get("train_loss", 0.0), metrics)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made at run time, so it is found again through the one that it was made from.
        origin = next((cls for cls in type(self).__mro__ if "_vaultlayer_origin" in cls.__dict__), None)
        if type(self) is not origin or origin is None:
            return super().__reduce_ex__(protocol)
        return _rebuild, (origin.__dict__["_vaultlayer_origin"],), self.__dict__


@functools.cache
def resumable(cls: type[_T]) -> type[_T]:
    """Return a subclass of a Trainer class that takes ``resume=``; usable as a class decorator.

    The same class gives the same subclass each time, and a class that takes ``resume=`` already is returned as
    it is. isinstance, the signature, help() and further subclassing work as before.

    Raises TypeError where ``cls`` is no Trainer.
    """
    if not (isinstance(cls, type) and issubclass(cls, transformers.Trainer)):
        raise TypeError(f"resumable() takes a subclass of transformers.Trainer, not {cls!r}")
    if issubclass(cls, _ResumableMixin):
        return cls
    namespace = {
        "__doc__": inspect.cleandoc(cls.__doc__ or "") + _DOC,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__signature__": _signature(cls),
        "_vaultlayer_origin": cls,
    }
    return type(cls.__name__, (_ResumableMixin, cls), namespace)


def _signature(cls: type) -> inspect.Signature:
    """Return the signature of a Trainer class with ``resume`` as one more keyword."""
    signature = inspect.signature(cls)
    extra = inspect.Parameter("resume", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Resume)
    parameters = list(signature.parameters.values())
    behind = 1 if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD else 0
    parameters.insert(len(parameters) - behind, extra)
    return signature.replace(parameters=parameters)


def _rebuild(cls: type) -> Any:
    return object.__new__(resumable(cls))


Trainer = resumable(transformers.Trainer)
"""transformers.Trainer with one more argument, ``resume=``."""
