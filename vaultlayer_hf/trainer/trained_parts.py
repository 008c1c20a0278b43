"""Which parameters are trained, which adapters are active, and which modules are in training mode, as that changes.

The Trainer sets the model to training within each step, and a model begins in evaluation. So what a step does ahead of
that (trl's GKD lets the model write there) is done in evaluation by the first step of each start, and by no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vaultlayer_hf.state.model_modes import put_training, take_training
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.tensor_digests import plain_name
from vaultlayer_hf.trainer.adapter_load import activate_adapters, active_adapters
from vaultlayer_hf.trainer.trained import Trained


class TrainedParts:
    """What of a model is trained, from the begin of a training on.

        parts = TrainedParts(trained)
        parts.load_state_dict(kept)  # of the checkpoint that it goes on from
        parts.put_flags()  # once more, where a callback has changed them ahead of the first step
        kept = parts.state_dict()  # at each save

    Args:
        trained: what is trained; of a sharded model nothing is noted.
    """

    def __init__(self, trained: Trained) -> None:
        self._trained = trained
        self._first, self._first_active = self._now(), active_adapters(trained.model)
        self._kept: Mapping[str, bool] = {}  # of the checkpoint that the training goes on from
        self._training: Mapping[str, bool] = {}  # and its modules'

    def state_dict(self) -> dict[str, Any]:
        """Return what is other than at the begin, and the modules' modes."""
        active = active_adapters(self._trained.model)
        return {
            "flags": {name: on for name, on in self._now().items() if self._first.get(name) != on},
            "active": active if active != self._first_active else None,
            "training": take_training(peeled(self._trained.model)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have trained what was when the checkpoint was saved."""
        if state.get("active"):
            activate_adapters(self._trained.model, state["active"])
        self._kept = self._now() | state.get("flags", {})
        self._training = state.get("training", {})  # earlier versions kept none
        self.put_flags()

    def put_flags(self) -> None:
        """Have those parameters trained, and those modules in training mode, that were when a checkpoint was saved."""
        for name, parameter in self._parameters():
            if name in self._kept:
                parameter.requires_grad_(self._kept[name])
        if self._training:
            model = peeled(self._trained.model)
            put_training(model, self._training)
            self._trained.model.training = model.training  # of a wrapper, too

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        if not self._trained.sharded:
            for name, parameter in peeled(self._trained.model).named_parameters():
                yield plain_name(name), parameter

    def _now(self) -> dict[str, bool]:
        return {name: parameter.requires_grad for name, parameter in self._parameters()}
