"""What decides whether a Trainer's save may run beside its training, read from the Trainer and what it trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import TrainerCallback

from vaultlayer_hf.state.capture.copying import not_stepped_by, stepped_by
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


def facts_of(trainer: Any, *, wanted: bool) -> Facts:
    """Return what decides how this Trainer saves; its optimizer exists by now."""
    args = trainer.args
    optimizer = plain_optimizer(trainer)
    places = set((getattr(trainer.model, "hf_device_map", None) or {}).values())
    return Facts(
        wanted=wanted,
        engine=_engine(trainer),
        saved_by=_origins(trainer, _SAVES, but=_OURS),
        trained_by=_origins(trainer, _TRAINS, but=_OURS),
        pushes=bool(args.push_to_hub)
        and str(getattr(args.hub_strategy, "value", args.hub_strategy)) != "end",
        away=bool(places & {"cpu", "disk"}) or any(one.is_meta for one in trainer.model.parameters()),
        optim=str(getattr(args.optim, "value", args.optim)),
        has_step_hooks=isinstance(optimizer, torch.optim.Optimizer),
        steps_in_backward=any(
            getattr(one, "_post_accumulate_grad_hooks", None) for one in trainer.model.parameters()
        ),
        swaps_for_evaluation=callable(getattr(optimizer, "eval", None)),
    )


def plain_optimizer(trainer: Any) -> Any:
    """Return the optimizer inside accelerate's wrapper."""
    return getattr(trainer.optimizer, "optimizer", trainer.optimizer)


def stepped(trainer: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that the optimizer's step changes: its parameters, and its state."""
    return stepped_by([plain_optimizer(trainer)])


def others(trainer: Any) -> Iterator[torch.Tensor]:
    """Yield the model's tensors that something else than the optimizer's step may change."""
    return not_stepped_by([plain_optimizer(trainer)], [trainer.model])


def may_change(callback: TrainerCallback, event: str) -> bool:
    """Tell whether a callback's answer to an event may change what is trained: one that isn't known to only look."""
    return _module_of(callback, event).split(".")[0] not in (*_LOOK_ONLY, "")


def may_read_folder(callback: TrainerCallback) -> bool:
    """Tell whether a callback may read the checkpoint's folder when it hears that it was saved."""
    module = _module_of(callback, "on_save")
    return bool(module) and module not in _LEAVE_FOLDERS and module.split(".")[0] != _OURS


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
    if getattr(trainer, "is_fsdp_enabled", False):
        return "FSDP"
    kind = str(getattr(trainer.args.parallel_mode, "value", trainer.args.parallel_mode))
    return {"tpu": "XLA", "sagemaker_model_parallel": "SageMaker"}.get(kind, "")
