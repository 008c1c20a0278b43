"""Scripts whose loop isn't in them: another framework's, or that of a module beside them."""

from __future__ import annotations

import re
from pathlib import Path

from vaultlayer_hf.run.insert.calls import made_by, method_calls, receiver
from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.source import Script, libcst_or_error

ENVIRONMENT = re.compile(r"^(?:gym|gymnasium)\b|\.make_vec$")
"""What makes an environment of reinforcement learning."""
_SPREAD = re.compile(
    r"(?:^|\.)(?:fully_shard|parallelize_module|FullyShardedDataParallel|distribute_module)$|^deepspeed\.initialize$"
)


def refuse_frameworks(script: Script) -> None:
    """Raise UnclearError for a script whose loop is another framework's."""
    paths = script.imports.values()
    if any(path.split(".")[0] in ("pytorch_lightning", "lightning", "lightning_fabric") for path in paths):
        raise UnclearError(
            "Lightning isn't supported, its Trainer saves by itself: give that ModelCheckpoint(save_last=True), and "
            'trainer.fit(…, ckpt_path="last") goes on from there'
        )
    for node in script.all(libcst_or_error().Call):
        path = script.path(node.func)
        if _SPREAD.search(path) and not any(one.startswith("accelerate.") for one in paths):
            raise UnclearError(
                f"line {script.line(node)} spreads the parameters over ranks ({path.rpartition('.')[2]}), which a "
                "Checkpointer saves by an Accelerator alone"
            )
        if path.endswith("LocalSGD"):
            raise UnclearError(
                f"line {script.line(node)} uses LocalSGD, whose ranks have other weights between two rounds, and "
                "a checkpoint has those of one rank"
            )


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
    for path in dict.fromkeys(script.imports.values()):
        module = path.lstrip(".").rpartition(".")[0] or path.lstrip(".")
        beside = Path(script.name).parent / f"{module.replace('.', '/')}.py"
        try:
            if beside.is_file() and b".backward(" in beside.read_bytes():
                return f"; {beside.name}, from which it imports, does, and vl init edits one script only"
        except OSError:
            continue
    return ""
