"""Where a loop's save may run beside its training, beyond what its optimizers decide (state/capture/fit.py). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from vaultlayer_hf.state.capture.fit import Fit, OptimizerFacts


@dataclass(frozen=True)
class LoopFacts(OptimizerFacts):
    """What decides it, of one loop, beside its optimizers.

    Attributes:
        world_size: ranks that save together.
        engine: what keeps the model in parts, or saves in its own way: ``"FSDP"``, ``"DEEPSPEED"``; or nothing.
        optimizers: how many there are.
    """

    world_size: int = 1
    engine: str = ""
    optimizers: int = 1


def choose_for_loop(facts: LoopFacts) -> Fit:
    """Return how a loop with these facts saves.

    >>> choose_for_loop(LoopFacts(world_size=2))
    Fit(mode='waiting', reason='2 ranks save together')
    """
    if facts.engine:
        return Fit("waiting", f"{facts.engine} saves in its own way")
    if facts.world_size > 1:
        return Fit("waiting", f"{facts.world_size} ranks save together")
    if not facts.optimizers:
        return Fit("copied", "there is no optimizer whose step could be waited for")
    copied = facts.why_copied
    return Fit("copied", copied) if copied else Fit("overlapped")
