"""The one argument: ``resume=`` for transformers.Trainer and for any subclass of it.

The seam to transformers is small, because transformers moves: the public callback API, a wrap of
``train`` and, while it trains, a wrap of ``_save_checkpoint`` (saving.py).
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

import transformers

from vaultlayer_hf.trainer.added import WithoutVault
from vaultlayer_hf.trainer.argument import Resume, not_a_trainer, settings_for
from vaultlayer_hf.trainer.callback import VaultLayerCallback
from vaultlayer_hf.trainer.train_on import train_on

_DOC = """

One more argument:
    resume: where this run's checkpoints are kept, and from where it goes on: a vault URI
        (``s3://bucket/prefix``, ``file:///folder``, a path), ``URI@<step>`` for an older checkpoint, True for
        the vault that ``VAULTLAYER_VAULT`` names, or Settings. None or False: the Trainer as it is.

And one attribute, ``vault``: ``trainer.vault.add("ema", ema)`` carries one more object with each checkpoint.
"""


class _ResumableMixin:
    """Sits in front of a Trainer class: adds the argument, the callback and a train() on the vault."""

    _vaultlayer: VaultLayerCallback | None = None

    def __init__(self, *args: Any, resume: Resume = None, **kwargs: Any) -> None:
        if "_vaultlayer" in self.__dict__:
            # super(MyTrainer, self) in a decorated MyTrainer finds this class again, and would so for ever.
            raise TypeError(
                f"{type(self).__qualname__} is decorated with @resumable: in its methods write super() without "
                "arguments, or decorate where it is used: resumable(MyTrainer)(…)"
            )
        settings, self._vaultlayer = settings_for(resume), None
        vault = VaultLayerCallback(settings) if settings is not None else None
        super().__init__(*args, **kwargs)
        trainer: Any = self
        if vault is not None:
            vault.bind(trainer.args, trainer.model, trainer.callback_handler)
            vault.run.stops_when_finished = True
            trainer.add_callback(vault)
            self._vaultlayer = vault

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, from the newest complete checkpoint of the vault where there is one; else as transformers does."""
        train: Callable[..., Any] = super().train  # type: ignore[misc]
        vault = self._vaultlayer
        if vault is None:
            return train(*args, **kwargs)
        return train_on(vault, self, train, args, kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A class that is made at run time may not be found by its name: then through the one it was made from.
        cls = type(self)
        if "_vaultlayer_origin" not in cls.__dict__ or _named(cls) is cls:
            return super().__reduce_ex__(protocol)
        return _rebuild, (cls.__dict__["_vaultlayer_origin"],), self.__dict__


if TYPE_CHECKING:
    P = ParamSpec("P")
    T = TypeVar("T", covariant=True)

    class ResumableClass(type, Generic[P, T]):
        """What type checkers are told of a class that ``resumable`` returns: its own signature, and ``resume=``.

        A ParamSpec can't have a keyword added. So a call without ``resume`` is checked against the class's own
        signature, and one with it isn't checked beyond that. mypy doesn't look at what a class decorator returns:
        where it is to know ``resume=`` on a class of your own, derive that from ``vaultlayer_hf.Trainer``.
        """

        @overload
        def __call__(cls, *args: P.args, **kwargs: P.kwargs) -> T: ...
        @overload
        def __call__(cls, *args: Any, resume: Resume, **kwargs: Any) -> T: ...
        def __call__(cls, *args: Any, **kwargs: Any) -> T:
            raise NotImplementedError

    def resumable(cls: Callable[P, T]) -> ResumableClass[P, T]:
        """See below."""

else:

    @functools.cache
    def resumable(cls):
        """Return a subclass of a Trainer class that takes ``resume=``; usable as a class decorator.

        The same class gives the same subclass each time, and a class that takes ``resume=`` already is returned as
        it is. isinstance, the signature, help() and further subclassing work as before.

        Raises TypeError where ``cls`` is no Trainer.
        """
        if not (isinstance(cls, type) and issubclass(cls, transformers.Trainer)):
            raise TypeError(not_a_trainer(cls))
        if issubclass(cls, _ResumableMixin):
            return cls
        namespace = {
            "__doc__": inspect.cleandoc(cls.__doc__ or "") + _DOC,
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__init__": _like(cls.__init__, _ResumableMixin.__init__, resume=True),
            "train": _like(cls.train, _ResumableMixin.train),
            "_vaultlayer_origin": cls,
        }
        if not hasattr(cls, "vault"):
            namespace["vault"] = _VaultOf()
        return type(cls.__name__, (_ResumableMixin, cls), namespace)


class _VaultOf:
    """``trainer.vault``: its callback. An attribute of this name that a script's own class sets wins."""

    def __get__(self, trainer: Any, cls: type) -> Any:
        if trainer is None:
            return self
        return trainer._vaultlayer if trainer._vaultlayer is not None else WithoutVault()


def _like(original: Any, method: Callable[..., Any], *, resume: bool = False) -> Callable[..., Any]:
    """Return a method that looks like ``original`` to help() and inspect, with ``resume`` where asked."""

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs)

    if resume:
        signature = inspect.signature(original)
        extra = inspect.Parameter("resume", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Resume)
        parameters = list(signature.parameters.values())
        behind = 1 if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD else 0
        parameters.insert(len(parameters) - behind, extra)
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


def _named(cls: type) -> Any:
    """Return what stands in a class's module under its name, as pickle looks for it."""
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found


def _rebuild(cls: type) -> Any:
    made: Any = resumable(cls)
    return object.__new__(made)


if TYPE_CHECKING:

    class Trainer(transformers.Trainer):
        """transformers.Trainer with one more argument, ``resume=``."""

        vault: VaultLayerCallback | WithoutVault

        def __init__(
            self,
            model: Any = None,
            args: transformers.TrainingArguments | None = None,
            data_collator: Any = None,
            train_dataset: Any = None,
            eval_dataset: Any = None,
            processing_class: Any = None,
            model_init: Callable[..., Any] | None = None,
            compute_loss_func: Callable[..., Any] | None = None,
            compute_metrics: Callable[..., dict[str, Any]] | None = None,
            callbacks: list[Any] | None = None,
            optimizers: tuple[Any, Any] = (None, None),
            optimizer_cls_and_kwargs: tuple[type[Any], dict[str, Any]] | None = None,
            preprocess_logits_for_metrics: Callable[..., Any] | None = None,
            *,
            resume: Resume = None,
        ) -> None: ...

else:
    Trainer = resumable(transformers.Trainer)
    """transformers.Trainer with one more argument, ``resume=``."""
    Trainer.__module__ = __name__  # where pickle and help() find it
