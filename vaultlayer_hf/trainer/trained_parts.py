"""Which parameters are trained, and which adapters are active, where that changes as a model is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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

    def state_dict(self) -> dict[str, Any]:
        """Return what is other than at the begin."""
        active = active_adapters(self._trained.model)
        return {
            "flags": {name: on for name, on in self._now().items() if self._first.get(name) != on},
            "active": active if active != self._first_active else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have trained what was when the checkpoint was saved."""
        if state.get("active"):
            activate_adapters(self._trained.model, state["active"])
        self._kept = self._now() | state.get("flags", {})
        self.put_flags()

    def put_flags(self) -> None:
        """Have those parameters trained, or not, that were when the checkpoint was saved."""
        for name, parameter in self._parameters():
            if name in self._kept:
                parameter.requires_grad_(self._kept[name])

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        if not self._trained.sharded:
            for name, parameter in peeled(self._trained.model).named_parameters():
                yield plain_name(name), parameter

    def _now(self) -> dict[str, bool]:
        return {name: parameter.requires_grad for name, parameter in self._parameters()}
