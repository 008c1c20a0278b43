"""What TRL's Trainers hold outside their model, and no checkpoint of stock's holds. TRL itself isn't imported.

| what | carried |
|---|---|
| a reference model that is synced (``sync_ref_model``) | exactly, by rank 0; a sharded one isn't, which is said |
| ``BEMACallback``: its averages, and what they began with | exactly, by rank 0 |
| GRPO, RLOO: generations that are used over several steps, and the count of these steps | exactly, by each rank |
| figures that are summed up for the next log | exactly, by each rank |
| random numbers of an engine that generates elsewhere (vLLM) | no: said at the resume |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.tensor_digests import is_shard
from vaultlayer_hf.trainer.added import Added
from vaultlayer_hf.trainer.trl_generations import fit_generations


def trl_state(trainer: Any, callbacks: Iterable[Any]) -> list[Added]:
    """Return what is to be carried of a Trainer and its callbacks; nothing where they aren't TRL's."""
    return list(_of(trainer, callbacks))


def say_inexact(session: Session, trainer: Any, callbacks: Iterable[Any], resumed: Path | None) -> None:
    """Say what of it isn't carried: a sharded reference model at once, an engine of its own at a resume. All ranks."""
    averaged = [tensor for one in _named(callbacks, "BEMACallback") for tensor in one.ema_params]
    if any(_sharded(one.ref_model) for one in _syncing(callbacks)) or any(map(is_shard, averaged)):
        session.events.warn_once(
            "ref_model",
            EventKind.INEXACT,
            "the synced reference model, or the averages of BEMA, are spread over ranks, and no checkpoint holds them: "
            "after a resume they begin as the script makes them, and the numbers may differ from an unbroken run's",
        )
    if resumed is not None and _is_trl(trainer) and getattr(trainer, "use_vllm", False):
        session.events.warn_once(
            "vllm",
            EventKind.INEXACT,
            "vLLM begins with other random numbers than it had at the save: the next generations, and so the numbers, "
            "may differ from an unbroken run's",
        )


def _of(trainer: Any, callbacks: Iterable[Any]) -> Iterator[Added]:
    found = list(callbacks)
    for number, one in enumerate(_syncing(found)):
        if not _sharded(one.ref_model):
            yield Added(f"trl_ref_model{number or ''}", one.ref_model)
    for number, one in enumerate(_named(found, "BEMACallback")):
        if not any(map(is_shard, one.ema_params)):
            yield Added(f"trl_bema{number or ''}", _Bema(one))
    if _is_trl(trainer):
        yield Added("trl_trainer", _Counted(trainer), each_rank=True)


class _Bema:
    """The averages of a BEMACallback, which makes them at the begin of a training."""

    def __init__(self, callback: Any) -> None:
        self._callback = callback

    def state_dict(self) -> dict[str, Any]:
        callback = self._callback
        return {
            "theta0": list(callback.theta0_params),
            "ema": list(callback.ema_params),
            "model": callback.running_model.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        callback = self._callback
        for name, present in (("theta0", callback.theta0_params), ("ema", callback.ema_params)):
            for tensor, saved in zip(present, state[name], strict=True):
                tensor.copy_(saved)
        callback.running_model.load_state_dict(state["model"])


class _Counted:
    """What one of TRL's Trainers counts and keeps from step to step, as far as it has it."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        own = self._trainer.__dict__
        found = {
            name: own[name] for name in ("_step", "_buffered_inputs", "_total_train_tokens") if name in own
        }
        metrics = own.get("_metrics")
        if isinstance(metrics, dict) and isinstance(metrics.get("train"), dict):
            found["_metrics"] = {
                name: list(values) for name, values in metrics["train"].items() if _are_numbers(values)
            }
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = self._trainer.__dict__
        state = {**state, **fit_generations(state, self._trainer.args)}
        device = getattr(getattr(self._trainer, "accelerator", None), "device", "cpu")
        for name, value in state.items():
            if name == "_metrics" and isinstance(own.get(name), dict):
                for metric, values in value.items():
                    own[name]["train"][metric][:] = values
            elif name in own:
                own[name] = _moved(value, device)


def _moved(value: Any, device: Any) -> Any:
    """Return a value with its tensors on a device, where the Trainer has made them."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(one, device) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(one, device) for one in value)
    return value


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(one, (int, float)) for one in values)


def _is_trl(thing: Any) -> bool:
    return any(cls.__module__.split(".")[0] == "trl" for cls in type(thing).__mro__)


def _named(callbacks: Iterable[Any], name: str) -> list[Any]:
    return [
        one
        for one in callbacks
        if any(cls.__name__ == name and cls.__module__.split(".")[0] == "trl" for cls in type(one).__mro__)
    ]


def _syncing(callbacks: Iterable[Any]) -> list[Any]:
    found = _named(callbacks, "SyncRefModelCallback")
    return [one for one in found if isinstance(one.ref_model, torch.nn.Module)]


def _sharded(model: torch.nn.Module) -> bool:
    return any(map(is_shard, peeled(model).parameters()))
