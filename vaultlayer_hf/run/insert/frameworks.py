"""Scripts whose loop isn't in them: another framework's, or that of a module beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import made_by, method_calls, receiver
from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.source import Script, dotted

ENVIRONMENT = re.compile(
    r"^(?:gym|gymnasium|envpool|isaacgym|pettingzoo|procgen|supersuit|dm_control|minigrid|brax)\b|\.make_vec$"
)
"""What makes an environment of reinforcement learning."""
_SPREAD = re.compile(
    r"(?:^|\.)(?:fully_shard|parallelize_module|FullyShardedDataParallel|distribute_module)$|^deepspeed\.initialize$"
)
_OWN_ORDER = re.compile(
    r"^torchtext\.(?:legacy\.)?data\.(?:Bucket)?Iterator\b"
    r"|^webdataset\.(?:\w+\.)?(?:ResampledShards|shuffle|detshuffle)$"
)
"""What shuffles by random numbers that it seeds itself: with the clock, where nothing else is said."""

_FRAMES = {
    "lightning.fabric": (
        r"Fabric$",
        "Lightning Fabric isn't supported: fabric.save() and fabric.load() keep its loop",
    ),
    "lightning_fabric": (
        r"Fabric$",
        "Lightning Fabric isn't supported: fabric.save() and fabric.load() keep its loop",
    ),
    "ignite": (
        r"(?:Engine|create_supervised_trainer)$",
        "its loop is an Engine of Ignite, which isn't supported: Ignite's own Checkpoint handler keeps it",
    ),
    "composer": (
        r"Trainer$",
        "Composer isn't supported, its Trainer saves by itself: Trainer(save_folder=…, autoresume=True)",
    ),
    "fastai": (
        r"\.(?:fit|fit_one_cycle|fine_tune|fit_flat_cos)$",
        "its loop is fastai's Learner, which isn't supported: fastai's SaveModelCallback keeps its weights",
    ),
    "keras": (
        r"\.fit$",
        "its loop is Keras' fit(), which isn't supported: Keras' BackupAndRestore goes on after a death",
    ),
    "tensorflow": (
        r"\.fit$",
        "its loop is Keras' fit(), which isn't supported: Keras' BackupAndRestore goes on after a death",
    ),
}
"""Frameworks with loops of their own: what of them is called in a script whose loop is theirs, and what to do there."""
_ELSEWHERE = {
    "horovod": "Horovod starts its ranks, which a Checkpointer doesn't know: torch.distributed's it does",
    "apex.amp": "apex.amp keeps its loss scales in itself, where no checkpoint finds them: GradScaler's come back",
    "colossalai": "ColossalAI keeps parameters in chunks over its ranks, which its own Booster saves alone",
    "torch.distributed.rpc": "torch.distributed.rpc keeps parameters in other processes, which no checkpoint has",
    "dgl.distributed": "dgl.distributed keeps parameters in processes of its own, which no checkpoint of a rank has",
}


def refuse_frameworks(script: Script) -> None:
    """Raise UnclearError for a script whose loop is another framework's."""
    paths = script.imports.values()
    _refuse_own_loops(script)
    if any(path.split(".")[0] in ("pytorch_lightning", "lightning", "lightning_fabric") for path in paths):
        raise UnclearError(
            "Lightning isn't supported, its Trainer saves by itself: give that ModelCheckpoint(save_last=True), and "
            'trainer.fit(…, ckpt_path="last") goes on from there'
        )
    for name, why in _ELSEWHERE.items():
        if any(path == name or path.startswith(f"{name}.") for path in paths):
            raise UnclearError(why)
    for call in method_calls(script, "update_and_allocate"):
        raise UnclearError(
            f"line {script.line(call)} allocates AdaLora's ranks by what it has gathered on its way, which no "
            "state_dict() has"
        )
    for node in script.all(cst.Call):
        path = script.path(node.func)
        if _OWN_ORDER.match(path) or _shuffles_shards(script, node):
            raise UnclearError(
                f"line {script.line(node)} makes an iterator that shuffles by random numbers of its own, where no "
                "checkpoint finds them"
            )
        if _SPREAD.search(path) and not any(one.startswith("accelerate.") for one in paths):
            raise UnclearError(
                f"line {script.line(node)} spreads the parameters over ranks ({path.rpartition('.')[2]}), which a "
                "Checkpointer saves by an Accelerator alone"
            )


def _shuffles_shards(script: Script, call: Any) -> bool:
    """Tell whether a call has webdataset shuffle, or draw its shards: by an option, or as a link of its chain."""
    asked = {one.keyword.value: dotted(one.value) for one in call.args if one.keyword is not None}
    if script.path(call.func) == "webdataset.WebDataset":
        return any(asked.get(name, "None") not in ("None", "False") for name in ("resampled", "shardshuffle"))
    on = call.func
    if not isinstance(on, cst.Attribute) or on.attr.value != "shuffle":
        return False
    while isinstance(on, (cst.Attribute, cst.Call)):
        on = on.value if isinstance(on, cst.Attribute) else on.func
        if script.path(on).startswith("webdataset."):
            return True
    return False


def _refuse_own_loops(script: Script) -> None:
    """Raise UnclearError for a script that calls the loop of a framework."""
    stars = [
        one for one in script.all(cst.ImportFrom) if isinstance(one.names, cst.ImportStar) and one.module
    ]
    paths = [*script.imports.values(), *(dotted(one.module) for one in stars)]
    calls = [script.path(call.func) for call in script.all(cst.Call)]
    for frame, (pattern, why) in _FRAMES.items():
        imported = any(path == frame or path.startswith(f"{frame}.") for path in paths)
        if imported and any(re.search(pattern, call) for call in calls):
            raise UnclearError(why)


def refuse_environments(script: Script) -> None:
    """Raise UnclearError for a script that steps an environment: its state isn't in a checkpoint."""
    for call in method_calls(script, "step"):
        name = receiver(call)
        if name and any(ENVIRONMENT.search(made) for made in made_by(script, name)):
            raise UnclearError(
                f"{name} is an environment, whose state isn't saved with a checkpoint: a resume would begin it anew"
            )


def loop_elsewhere(script: Script) -> str:
    """Return where beside the script the loop is; ``""`` where it isn't there."""
    beside = _beside_with(script, rb"\.backward\(")
    return f"; {beside}, from which it imports, does, and vl init edits one script only" if beside else ""


def refuse_spread_elsewhere(script: Script) -> None:
    """Raise UnclearError where a module beside a script makes an Accelerator, or spreads parameters over ranks."""
    beside = _beside_with(
        script, rb"\bAccelerator\(|\bfully_shard\(|FullyShardedDataParallel\(|deepspeed\.initialize\("
    )
    if beside:
        raise UnclearError(
            f"{beside}, from which it imports, makes an Accelerator or spreads the parameters over ranks, which isn't "
            "seen here"
        )


def _beside_with(script: Script, pattern: bytes) -> str:
    """Return the name of a module beside a script, from which it imports, that has a pattern; ``""`` for none."""
    for path in dict.fromkeys(script.imports.values()):
        module = path.lstrip(".").rpartition(".")[0] or path.lstrip(".")
        beside = Path(script.name).parent / f"{module.replace('.', '/')}.py"
        try:
            if beside.is_file() and re.search(pattern, beside.read_bytes()):
                return beside.name
        except OSError:
            continue
    return ""
