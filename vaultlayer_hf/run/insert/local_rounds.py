"""Accelerate's LocalSGD: ranks that train by themselves, and meet every few steps to average their weights.

Only right behind such a meeting have all of them the same weights, so there a step of the Checkpointer ends. What each
rank goes on with by itself, the state of its optimizer and the buffers of its model, is carried for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import method_calls, receiver
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.source import Script, dotted


@dataclass(frozen=True)
class LocalRounds:
    """A loop's LocalSGD.

    Attributes:
        name: what it is called within its block.
        model: the code of the model that it averages.
    """

    name: str
    model: str

    @property
    def met(self) -> str:
        """The condition under which the ranks have just met; a rank alone is never apart from others."""
        return f"(not {self.name}.enabled or {self.name}.num_steps % {self.name}.local_sgd_steps == 0)"


def find_local_rounds(script: Script, loop: Loop) -> LocalRounds | None:
    """Return a loop's LocalSGD; None where it has none. Raises UnclearError for one that is used in another way."""
    made = [call for call in script.all(cst.Call) if script.path(call.func).endswith("LocalSGD")]
    if not made:
        return None
    why = (
        f"line {script.line(made[0])} uses LocalSGD, whose ranks have other weights between two rounds, and where a "
        "round ends isn't seen"
    )
    if len(made) > 1 or loop.calls:
        raise UnclearError(why)
    block = next((one for one in script.around(loop.inner) if isinstance(one, cst.With)), None)
    items = [item for item in (block.items if block is not None else ()) if item.item is made[0]]
    if not items or items[0].asname is None:
        raise UnclearError(why)
    name = dotted(items[0].asname.name)
    steps = [call for call in method_calls(script, "step") if receiver(call) == name]
    inside = [call for call in steps if any(up is one for one in loop.tail for up in script.around(call))]
    given = {one.keyword.value: one.value for one in made[0].args if one.keyword is not None}
    placed = [one.value for one in made[0].args if one.keyword is None and not one.star]
    model = given.get("model", placed[1] if len(placed) > 1 else None)
    if len(steps) != 1 or len(inside) != 1 or model is None or not dotted(model):
        raise UnclearError(why)
    return LocalRounds(name, dotted(model))
