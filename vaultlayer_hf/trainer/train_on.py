"""What a Trainer's ``train()`` does on a vault: what it goes on from, what is left to stock, and how it ends.

``Trainer(resume=…)`` calls it, and so does `vl run` for a Trainer whose script knows of no vault.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from transformers.trainer_utils import TrainOutput

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.trainer.adapter_load import adapters_kept
from vaultlayer_hf.trainer.asked_epochs import epochs_kept
from vaultlayer_hf.trainer.call import Call
from vaultlayer_hf.trainer.named import RunCallback, choose
from vaultlayer_hf.trainer.optimizer_load import load_checked
from vaultlayer_hf.trainer.origin import note_trained
from vaultlayer_hf.trainer.over import AlreadyFinishedError
from vaultlayer_hf.trainer.step_sizes import PlaceInPass
from vaultlayer_hf.trainer.terms import end_figures


def train_on(
    vault: RunCallback,
    trainer: Any,
    train: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    inserted: bool = False,
) -> Any:
    """Make a Trainer's call of ``train(*args, **kwargs)`` on a vault: what ``resume=`` does.

    Called again, it goes on from the vault's newest checkpoint, to the weights of an unbroken run. A search, and
    another training behind one that came to its end, are trained as stock. ``inserted``: the script doesn't know of the
    vault, so its second train() means what stock makes of it.
    """
    call = Call(train, args, kwargs)
    if call.get("trial", 1) is not None:
        with vault.run.suspended("a hyperparameter search"):
            return call.do()
    if vault.run.complete and (inserted or getattr(trainer, "_vaultlayer_phase", None) != Phase.of(trainer)):
        with vault.run.suspended("another training of a Trainer that has ended one"):
            return call.do()
    if not call.takes("resume_from_checkpoint"):
        raise SettingsError(
            f"{type(trainer).__name__}.train() takes no resume_from_checkpoint, so nothing can tell it where to go on "
            "from: give it that argument and pass it on to super().train(), or keep a loop of its own with a "
            "Checkpointer instead of resume=. Nothing was trained"
        )
    explicit = call.get("resume_from_checkpoint", 0)
    vault.run.attach(trainer)
    try:
        with load_checked(trainer):  # around what choose() wraps in a fork
            chosen = choose(vault, trainer, explicit)
            if chosen is not explicit:
                call.set("resume_from_checkpoint", 0, chosen)
            trained = vault.run.origin.trained if vault.run.origin is not None else None

            def note(place: PlaceInPass | None) -> None:
                if vault.run.origin is not None:
                    vault.run.origin = replace(vault.run.origin, place=place)

            with adapters_kept(trainer), epochs_kept(trainer, vault.run.training, trained, note):
                return call.do()
    except AlreadyFinishedError:
        return _end_untrained(vault, trainer)
    except BaseException:
        _remove_noise(trainer)
        raise
    finally:
        note_trained(trainer, vault.run.address.uri)
        trainer._vaultlayer_phase = Phase.of(trainer)
        vault.close()


@dataclass(frozen=True)
class Phase:
    """What tells one training of a Trainer from the next one: scripts change these between two train().

    Attributes:
        data: the training data, the same object.
        trained: which of the model's parameters are trained, in their order.
        learning_rate: as the arguments have it.
    """

    data: Any
    trained: tuple[bool, ...]
    learning_rate: float

    @classmethod
    def of(cls, trainer: Any) -> Phase:
        """Return a Trainer's, as it stands."""
        trained = tuple(parameter.requires_grad for parameter in trainer.model.parameters())
        return cls(_Same(trainer.train_dataset), trained, trainer.args.learning_rate)


class _Same:
    """Compares by identity: a data set's own == may look at all its rows."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


def _remove_noise(trainer: Any) -> None:
    """Take NEFTune's noise out of a model whose training broke off: stock leaves it, and train() adds it once more."""
    if (handle := getattr(trainer, "neftune_hook_handle", None)) is not None:
        handle.remove()


def _end_untrained(vault: RunCallback, trainer: Any) -> TrainOutput:
    """End a train() that has nothing left to train: stock would train one more step."""
    trainer.is_in_train = False
    _remove_noise(trainer)
    # It may just have ended, at the end of the epoch that the newest checkpoint stands behind.
    metrics = vault.run.end_untrained(trainer.state) if vault.run.active else end_figures(trainer.state)
    if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
        trainer._load_best_model()
    with suppress(Exception):  # what the script does next draws what it draws behind an unbroken training
        trainer._load_rng_state(vault.run.resumed_folder(trainer.args, trainer.state))
    trainer.control = trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    return TrainOutput(trainer.state.global_step, metrics.get("train_loss", float("nan")), metrics)
