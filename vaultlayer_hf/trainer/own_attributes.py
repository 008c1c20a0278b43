"""Which attributes of an object may be state that no file of a checkpoint holds, by the kind of the object.

Not those that each start makes anew, nor those that the Trainer's own files bring back. Each function returns them by
their names, as they are now.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy
import torch
from transformers import TrainerControl, TrainerState

from vaultlayer_hf.state.generator_states import GENERATORS
from vaultlayer_hf.state.object_kinds import CONTAINERS, OF_EACH_MODULE, is_of_script, own_attributes
from vaultlayer_hf.trainer.exchanged import is_method
from vaultlayer_hf.trainer.outside import unsaved_buffers

_TABLES = ("training", "max_seq_len_cached")
"""Numbers of modules that say nothing of what is trained, or are made anew for longer inputs."""
_FEW = 64
"""Numbers in a container of a library's module, at most."""
_NUMBERS = (bool, int, float, str)
"""What is a number, or chooses between ways as one does."""
_SET_ANEW = ("eval_on_start", "max_steps", "num_train_epochs", "output_dir", "resume_from_checkpoint")
"""Arguments that a start decides, or that are changed for a while at one."""
_CADENCES = ("save_steps", "logging_steps", "eval_steps")
"""What the Trainer's state takes from the arguments at each start."""
_OF_EACH_CONFIG = ("transformers_version", "use_cache", "name_or_path")
"""What the Trainer and ``save_pretrained`` set in a configuration."""


def of_object(thing: Any) -> dict[str, Any]:
    """Return all attributes of an object of the script's own."""
    return dict(vars(thing))


def of_exporting_callback(callback: Any) -> dict[str, Any]:
    """Return what the Trainer's own state of a callback leaves out."""
    exported = callback.state()
    known = {*exported.get("args", ()), *exported.get("attributes", ())}
    return {name: value for name, value in vars(callback).items() if name not in known}


def of_trainer(trainer: Any) -> dict[str, Any]:
    """Return what no class of a library assigns: neither ours nor functions in the place of methods."""
    own = own_attributes(trainer)
    return {
        name: value
        for name, value in own.items()
        if not (name.startswith("_vaultlayer") or is_method(trainer, name, value))
    }


def of_arguments(args: Any) -> dict[str, Any]:
    """Return the arguments that a callback may change on the way."""
    found = {name: value for name, value in _public(dict(vars(args))).items() if isinstance(value, _NUMBERS)}
    return {name: value for name, value in found.items() if name not in _SET_ANEW and "token" not in name}


def of_config(config: Any) -> dict[str, Any]:
    """Return the numbers that a model may read as it computes."""
    found = {
        name: value for name, value in _public(dict(vars(config))).items() if isinstance(value, _NUMBERS)
    }
    return {name: value for name, value in found.items() if name not in _OF_EACH_CONFIG}


def of_state(state: Any) -> dict[str, Any]:
    """Return what its file doesn't bring back: what the arguments set anew, and what a script has added."""
    saved = {one.name for one in fields(TrainerState)} - set(_CADENCES)
    return {name: value for name, value in _public(dict(vars(state))).items() if name not in saved}


def of_control(control: Any) -> dict[str, Any]:
    """Return what a script has added to the Trainer's control: its own flags are of one step."""
    known = {one.name for one in fields(TrainerControl)}
    return {name: value for name, value in _public(dict(vars(control))).items() if name not in known}


def of_module(module: Any) -> dict[str, Any]:
    """Return a module's own attributes, the numbers of a library's, and the buffers that no checkpoint holds."""
    if is_of_script(type(module)):
        found = own_attributes(module)
        found = {name: value for name, value in found.items() if name not in OF_EACH_MODULE}
    else:
        every, added = _public(dict(vars(module))), own_attributes(module)
        found = {
            name: value
            for name, value in every.items()
            if isinstance(value, _NUMBERS) or _are_numbers(value) or (name in added and _is_state(value))
        }
    return {name: value for name, value in found.items() if name not in _TABLES} | unsaved_buffers(module)


def _is_state(value: Any) -> bool:
    """Tell whether what a script has hung on a library's module may be state."""
    kinds = (*CONTAINERS, *GENERATORS, torch.Tensor, numpy.ndarray)
    return isinstance(value, kinds) or is_of_script(type(value))


def _are_numbers(value: Any) -> bool:
    """Tell whether a value holds a few numbers, as the scales of a layer's adapters."""
    if not isinstance(value, (dict, list)) or not 0 < len(value) <= _FEW:
        return False
    return all(isinstance(one, _NUMBERS) for one in (value.values() if isinstance(value, dict) else value))


def of_allocator(allocator: Any) -> dict[str, Any]:
    """Return what AdaLoRA goes by as it allots its ranks: how important each one was so far."""
    return {name: value for name, value in vars(allocator).items() if "ipt" in name or "unc" in name}


def _public(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if not name.startswith("_")}
