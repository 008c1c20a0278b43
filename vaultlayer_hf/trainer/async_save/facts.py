"""What decides whether a Trainer's save may run beside its training, read from the Trainer and what it trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers import TrainerCallback

from vaultlayer_hf.state.capture.stepped import not_stepped_by, optimizer_facts, plain, stepped_by
from vaultlayer_hf.state.object_kinds import is_of_script
from vaultlayer_hf.trainer.async_save.fit import Facts

_SAVES = (
    "_save_checkpoint",
    "save_model",
    "_save",
    "_save_optimizer_and_scheduler",
    "_save_scaler",
    "_save_rng_state",
)
_TRAINS = ("training_step", "_inner_training_loop")
_OURS = "vaultlayer_hf"
_LOOK_ONLY = ("transformers", _OURS)
_LEAVE_FOLDERS = ("transformers.trainer_callback", _OURS)
_TRACKERS = "transformers.integrations.integration_utils"
_READ_WHERE: dict[str, tuple[str, Any] | None] = {
    "WandbCallback": ("_log_model", "checkpoint"),
    "MLflowCallback": ("_log_artifacts", True),
    "ClearMLCallback": ("_log_model", True),
    "DVCLiveCallback": ("_log_model", "all"),
    "NeptuneCallback": ("_should_upload_checkpoint", True),
    "FlyteCallback": ("sync_checkpoints", True),
    "TrackioCallback": None,
    "SwanLabCallback": None,
}
"""Trackers of transformers that hear of saves: the attribute with the value at which they read the folder; None: never.

Most of them are asked only for the losses. One that isn't named here counts as reading."""


def facts_of(trainer: Any, *, wanted: bool) -> Facts:
    """Return what decides how this Trainer saves; its optimizer exists by now."""
    args = trainer.args
    places = set((getattr(trainer.model, "hf_device_map", None) or {}).values())
    return Facts(
        wanted=wanted,
        engine=_engine(trainer),
        gathers=gathers(trainer),
        saved_by=_origins(trainer, _SAVES, but=_OURS),
        trained_by=_origins(trainer, _TRAINS, but=_OURS),
        pushes=bool(args.push_to_hub)
        and str(getattr(args.hub_strategy, "value", args.hub_strategy)) != "end",
        away=bool(places & {"cpu", "disk"}) or any(one.is_meta for one in trainer.model.parameters()),
        optim=str(getattr(args.optim, "value", args.optim)),
        **vars(optimizer_facts([plain_optimizer(trainer)], trainer.model.parameters())),
    )


def plain_optimizer(trainer: Any) -> Any:
    """Return the optimizer inside accelerate's wrapper."""
    return plain(trainer.optimizer)


def stepped(trainer: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that the optimizer's step changes: its parameters, and its state."""
    return stepped_by([plain_optimizer(trainer)])


def others(trainer: Any) -> Iterator[torch.Tensor]:
    """Yield the model's tensors that something else than the optimizer's step may change."""
    return not_stepped_by([plain_optimizer(trainer)], [trainer.model])


def may_change(callback: TrainerCallback, event: str) -> bool:
    """Tell whether a callback's answer to an event may change what is trained: one that isn't known to only look."""
    return _module_of(callback, event).split(".")[0] not in (*_LOOK_ONLY, "")


def reader_of_folder(callbacks: Iterable[TrainerCallback]) -> str:
    """Return the name of a callback that may read the checkpoint's folder when it hears of a save; empty: none."""
    return next((f"{type(one).__name__}.on_save" for one in callbacks if _may_read_folder(one)), "")


def _may_read_folder(callback: TrainerCallback) -> bool:
    module = _module_of(callback, "on_save")
    if not module or module in _LEAVE_FOLDERS or module.split(".")[0] == _OURS:
        return False
    tracker = callback.on_save.__qualname__.partition(".")[0] if module == _TRACKERS else ""
    if tracker not in _READ_WHERE:
        return True
    where = _READ_WHERE[tracker]
    if where is None:
        return False
    value = getattr(callback, where[0], where[1])
    return bool(getattr(value, "value", value) == where[1])  # of an enumeration its value


def _module_of(callback: TrainerCallback, event: str) -> str:
    """Return the module of a callback's answer to an event; empty where it has none."""
    answer = getattr(callback, event, None)
    function = getattr(answer, "__func__", answer)
    if function is None or function is getattr(TrainerCallback, event, None):
        return ""
    return str(getattr(function, "__globals__", {}).get("__name__") or "unknown")


def _origins(trainer: Any, methods: tuple[str, ...], *, but: str) -> tuple[str, ...]:
    """Return ``module.method`` of the code behind each method, also where it was wrapped or put in by hand."""
    found = []
    for name in methods:
        method = getattr(trainer, name, None)
        function = getattr(method, "__func__", method)
        module = str(getattr(function, "__globals__", {}).get("__name__") or "unknown")
        if method is not None and module.split(".")[0] != but:
            found.append(f"{module}.{name}")
    return tuple(found)


def _engine(trainer: Any) -> str:
    if getattr(trainer, "is_deepspeed_enabled", False):
        return "DeepSpeed"
    if getattr(trainer, "is_fsdp_enabled", False) and not gathers(trainer):
        return "FSDP with a state dict in shards"
    kind = str(getattr(trainer.args.parallel_mode, "value", trainer.args.parallel_mode))
    return {"tpu": "XLA", "sagemaker_model_parallel": "SageMaker"}.get(kind, "")


def gathers(trainer: Any) -> bool:
    """Tell whether FSDP gathers the whole state on rank 0 in each save, which writes it as plain files."""
    if not getattr(trainer, "is_fsdp_enabled", False):
        return False
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    kind = str(getattr(getattr(plugin, "state_dict_type", None), "name", ""))
    return kind == "FULL_STATE_DICT"


def acts_on_save(callback: Any) -> bool:
    """Tell whether a callback of the script's own does something behind the Trainer's save."""
    cls = type(callback)
    return is_of_script(cls) and getattr(cls, "on_save", None) is not TrainerCallback.on_save
