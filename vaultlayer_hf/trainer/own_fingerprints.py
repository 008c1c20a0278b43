"""Fingerprints of all that a script's own objects hold: of the places, of its data, of the parts that it exchanges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from vaultlayer_hf.state.data.followed import base_of
from vaultlayer_hf.state.data.samplers import parts
from vaultlayer_hf.state.data.sources import unwrapped
from vaultlayer_hf.state.data.weights import WEIGHTS
from vaultlayer_hf.state.fingerprints import Fingerprints, take_fingerprints
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.object_kinds import is_of_script, own_attributes
from vaultlayer_hf.state.stops import written_by_handlers
from vaultlayer_hf.trainer.data_holdings import held_by_data
from vaultlayer_hf.trainer.exchanged import parts_of_training
from vaultlayer_hf.trainer.own_places import Held, OwnPlaces, inner
from vaultlayer_hf.trainer.trained import Trained, is_adapter, is_of_adapters

_ALL = "the script's own objects, which can't be looked at"


class OwnFingerprints:
    """Takes them for one training.

    Args:
        places: where the script's own objects keep what training changes.
        trained: what is trained.
        loader: of the training data.
    """

    def __init__(self, places: OwnPlaces, trained: Trained, loader: Any) -> None:
        self._places, self._trained, self._loader = places, trained, loader

    def take(self, held: Sequence[Held]) -> tuple[Fingerprints, set[int]]:
        """Return the fingerprints of all that may change, and the ids of what is carried elsewhere.

        Never raises: where a script's objects can't be looked at, all of them count as changed.
        """
        trainer = self._places.trainer
        try:
            ids, names = written_by_handlers()
            known = self._known() | ids
            found = take_fingerprints({owner: values for owner, _, values in held}, known)
            found |= take_fingerprints(dict(self._base()), ())
            found |= take_fingerprints(held_by_data(self.dataset, trainer, held), known, meters=False)
            found |= take_fingerprints(dict(self._weights(held)), known)
            found |= dict(parts_of_training(trainer, peeled(self._trained.model)))
            return {path: one for path, one in found.items() if path.rpartition(".")[2] not in names}, known
        except Exception:  # of objects of the script's own, which may have moved
            return {_ALL: object()}, set()

    def _weights(self, held: Sequence[Held]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the tensors of libraries' samplers by which the next pass is drawn."""
        elsewhere = {id(value) for one in held for value in one.values.values()}
        for path, part in parts(self._loader).items():
            if path.endswith("sampler") and hasattr(part, "__dict__") and not is_of_script(type(part)):
                tensors = {
                    name: one
                    for name, one in vars(part).items()
                    if isinstance(one, torch.Tensor)
                    and name != WEIGHTS  # which go with the place in the data
                }
                yield type(part).__name__, {n: one for n, one in tensors.items() if id(one) not in elsewhere}

    def _known(self) -> set[int]:
        """Return the ids of what is carried elsewhere, or made by each start: the Trainer's own parts among it."""
        places, trainer = self._places, self._places.trainer
        model, optimizer = peeled(self._trained.model), inner(self._trained.optimizer)
        things = [model, *model.modules(), *model.parameters(), optimizer, self._trained.scheduler]
        things += [trainer, self.dataset, *places.callbacks, *places.carried]
        if trainer is not None:
            own = own_attributes(trainer)
            things += [one for name, one in vars(trainer).items() if name not in own]
            things += vars(trainer.callback_handler).values()
        return {id(one) for one in things if not isinstance(one, (bool, int, float, str, type(None)))}

    def _base(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what lies under an adapter, of which its files hold nothing."""
        model = peeled(self._trained.model)
        if is_adapter(model) and not self._trained.sharded:
            named = model.named_parameters()
            under = {n: one for n, one in named if not (one.requires_grad or is_of_adapters(n, model))}
            yield "model", under

    @property
    def dataset(self) -> Any:
        """The data set of the training, without a library's wrapper."""
        return unwrapped(getattr(base_of(self._loader), "dataset", None))
