"""A model's adapters (PEFT): what they are made with, and whether a checkpoint's go on as what they were.

A checkpoint of an adapter holds the adapter's weights alone, and stock loads them into whatever model is there. What
differs is taken by what it does to the numbers:

- The base model's weights: an adapter is a difference to them, and on others it means nothing. Refused. Names tell
  little (a folder moves, a hub name may point to another revision), so a few weights of the frozen base are compared,
  to the last bit that both dtypes have; names decide only where that can't be done, as with a quantised base.
- What is adapted (type, targets, layers, ranks): other tensors. Refused; most of it shows in the parameters' names.
- How the base was changed when the adapter was made (PiSSA, OLoRA and the like). Refused. Some of these draw
  numbers, so that a start without a seed changes it in another way: the refusal says so.
- All else (alpha, dropout, scaling): stock keeps what the script asks for, so that is said, and that holds.

Nothing of PEFT is imported: a model tells of its adapters by ``peft_config``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.errors import OtherRunError
from vaultlayer_hf.state.data_digest import spread
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.tensor_digests import is_shard, plain_name

_FILE = "adapter_config.json"
_BASE = "base_model_name_or_path"
_TENSORS, _NUMBERS = 16, 16
"""Of how many of the base model's matrices how many numbers are kept."""
_LOSSY = 2**-6
"""How far two roundings of one number may lie apart, relatively, where neither dtype holds all of the other's."""
_REFUSED = ("peft_type", "target_modules", "target_parameters", "modules_to_save", "layers_to_transform", "r")
_SAID_NOT = {_BASE, "revision", "inference_mode", "peft_version", "auto_mapping", "task_type"}
"""Bookkeeping: nothing follows from it for the numbers."""
_CHANGES_BASE = re.compile(r"pissa|olora|corda|loftq|eva|lora_ga", re.IGNORECASE)
_REPLACED = ".original_module."
"""What PEFT trains whole, as a classifier's head: its original stays, unused, and each start may draw it."""
_WEIGHTS = re.compile(r"(model|pytorch_model)(_\d+|-\d+-of-\d+)?\.(safetensors|bin|pt)(\.index\.json)?")


@dataclass(frozen=True)
class Adapters:
    """The adapters of a model.

    Attributes:
        configs: by the adapter's name, what it was made with, as in ``adapter_config.json``.
        base: by name of a frozen matrix of the base model, its dtype and its first numbers; empty where they can't
            be read, as of a quantised or sharded model.
    """

    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    base: dict[str, list[Any]] = field(default_factory=dict)


def adapters_of(models: list[Any]) -> Adapters:
    """Return the adapters of models; those of wrapped ones, too."""
    found = [
        model for model in map(peeled, models) if isinstance(getattr(model, "peft_config", None), Mapping)
    ]
    configs = {
        f"{number}/{name}" if number else str(name): _plain(config)
        for number, model in enumerate(found)
        for name, config in model.peft_config.items()
    }
    return Adapters(configs, _samples(found[0]) if found else {})


def read_adapters(folder: Path) -> Adapters:
    """Return the adapters that the files of PEFT in a checkpoint folder name."""
    configs = {}
    for path in (folder / _FILE, *sorted(folder.glob(f"*/{_FILE}"))):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            configs["default" if path.parent == folder else path.parent.name] = content
    return Adapters(configs)


def holds_base(folder: Path) -> bool:
    """Tell whether a checkpoint folder holds a whole model, and not an adapter alone."""
    return any(_WEIGHTS.fullmatch(path.name) for path in folder.iterdir())


def adapter_differences(then: Adapters, now: Adapters, *, holds_base: bool) -> list[str]:
    """Return in words what of the adapters differs, and which of the two holds. Pure but for a look at local folders.

    ``holds_base``: the checkpoint brings the base model's weights along. Raises OtherRunError.
    """
    words: list[str] = []
    for name, config in now.configs.items():
        before = then.configs.get(name)
        if before is None:
            continue
        _check_made_alike(before, config)
        words += _base_differences(before, config, then.base, now.base, holds_base)
        words += [
            f"{key}: {before[key]} in the checkpoint's adapter, {value} asked for: this start's holds from here on"
            for key, value in config.items()
            if key in before
            and key not in _SAID_NOT
            and key not in _REFUSED
            and _sorted(before[key]) != value
        ]
    return list(dict.fromkeys(words))


def _check_made_alike(before: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    for key in _REFUSED:
        if key not in before or key not in config:
            continue
        old, new = _sorted(before[key]), _sorted(config[key])
        # A pattern and a list may mean the same modules: the names of the parameters have been compared.
        if old != new and isinstance(old, list) == isinstance(new, list):
            raise _refused(f"{key} is {old} there, and {new} is asked for")
    old, new = before.get("init_lora_weights"), config.get("init_lora_weights")
    if old != new and any(isinstance(one, str) and _CHANGES_BASE.search(one) for one in (old, new)):
        raise _refused(
            f"init_lora_weights is {old} there, which changes the base model, and {new} is asked for"
        )


def _base_differences(
    before: Mapping[str, Any],
    config: Mapping[str, Any],
    base_then: Mapping[str, list[Any]],
    base_now: Mapping[str, list[Any]],
    holds_base: bool,
) -> list[str]:
    old, new = before.get(_BASE), config.get(_BASE)
    renamed = bool(old and new and old != new)
    names = f"{old} there, and {new} is asked for" if renamed else "other weights there"
    common = [name for name in base_now if name in base_then and _REPLACED not in name]
    if common:
        others = [name for name in common if not _same(base_then[name], base_now[name])]
        if not others:
            return []
        what = f"{names} ({len(others)} of {len(common)} matrices looked at differ, such as {others[0]})"
    elif not renamed:
        return []
    elif _is_folder(str(old)) or _is_folder(str(new)):
        return [
            f"the base model is {names}: whether its weights are the same isn't known, this start's hold from here on"
        ]
    else:
        what = names
    if holds_base:
        return [f"the base model is {what}: the checkpoint holds its weights, too, and these hold"]
    made = config.get("init_lora_weights")
    if common and not renamed and isinstance(made, str) and _CHANGES_BASE.search(made):
        raise OtherRunError(
            f"the checkpoint's adapter was made on another base model than this run's: {what}. init_lora_weights="
            f"{made!r} changes the base as the adapter is made, by numbers that may be drawn, and the checkpoint of an "
            "adapter doesn't hold the base. Nothing was trained. Where the first start set a seed ahead of "
            "get_peft_model(), set the same one (transformers.set_seed). Else its base can't be had again: set one, "
            "and name a new vault"
        )
    raise _refused(f"the base model is {what}")


def _refused(what: str) -> OtherRunError:
    return OtherRunError(
        f"the checkpoint's adapter is another one than this run's: {what}. Its weights mean nothing in what is "
        "asked for, so nothing was trained. Start with what the checkpoint's adapter_config.json names, or name a new "
        "vault"
    )


def _is_folder(name: str) -> bool:
    """Tell whether a base model is named by a folder on some disk, and not by its name on the hub."""
    return name.startswith((".", "~", os.sep)) or name.count("/") > 1 or "\\" in name or os.path.isdir(name)


def _same(then: list[Any], now: list[Any]) -> bool:
    """Tell whether two dtypes' numbers are roundings of the same ones."""
    types = [getattr(torch, str(one[0]), None) for one in (then, now)]
    if not all(isinstance(one, torch.dtype) for one in types):
        return True  # of a torch that this one doesn't know: nothing can be said
    a, b = (torch.tensor(one[1], dtype=torch.float64) for one in (then, now))
    if a.shape != b.shape:
        return False
    if {*types} == {torch.bfloat16, torch.float16}:
        return bool(torch.allclose(a, b, rtol=_LOSSY, atol=1e-6))
    coarse: Any = max(types, key=lambda one: torch.finfo(one).eps if one else 0.0)
    return bool(torch.equal(a.to(coarse), b.to(coarse)))


def _samples(model: Any) -> dict[str, list[Any]]:
    """Return the first numbers of some frozen matrices of a model's base."""
    try:
        base = model.get_base_model()
        frozen = [
            (plain_name(name), tensor)
            for name, tensor in base.named_parameters()
            if not tensor.requires_grad
            and tensor.dim() > 1
            and tensor.is_floating_point()
            and _REPLACED not in name
        ]
        if any(is_shard(tensor) or not tensor.numel() or tensor.is_meta for _, tensor in frozen):
            return {}
        return {
            name: _first(tensor)
            for name, tensor in (frozen[place] for place in spread(len(frozen), _TENSORS))
        }
    except Exception:  # a model of the user's own may have other methods: then only names are compared
        return {}


def _first(tensor: torch.Tensor) -> list[Any]:
    row = tensor.detach()
    while row.dim() > 1:
        row = row[0]
    return [str(tensor.dtype).removeprefix("torch."), row[:_NUMBERS].to("cpu", torch.float64).tolist()]


def _plain(config: Any) -> dict[str, Any]:
    """Return what an adapter was made with, as its file has it: text, numbers, lists and dictionaries of these."""
    try:
        found = config.to_dict() if hasattr(config, "to_dict") else dict(vars(config))
    except Exception:  # of the user's own
        return {}
    return dict(_items(found))


def _items(found: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        value = _sorted(getattr(value, "value", value))
        try:
            yield str(key), json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            continue


def _sorted(value: Any) -> Any:
    """Return a set, or a list of names, in one order: PEFT keeps sets, and writes them in any order."""
    if isinstance(value, (set, frozenset)) or (
        isinstance(value, list) and all(isinstance(one, str) for one in value)
    ):
        return sorted(value, key=str)
    return value
