"""The lines ahead of a loop: a Checkpointer is made and told of all that is saved, and everything comes back."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vaultlayer_hf.run.insert.between_trainings import kept_gradients
from vaultlayer_hf.run.insert.lasting_gradients import lasting_gradients
from vaultlayer_hf.run.insert.local_rounds import LocalRounds
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.loop_names import Names
from vaultlayer_hf.run.insert.loop_variables import Variables
from vaultlayer_hf.run.insert.pieces import carry_lines, key_of, prepared
from vaultlayer_hf.run.insert.saved_states import option_in
from vaultlayer_hf.run.insert.source import Edit, Script


@dataclass(frozen=True)
class LoopStart:
    """What the start of a loop needs.

    Attributes:
        script, loop, names, variables: what is edited, and what comes back.
        ckpt: what the Checkpointer is called.
        vault: the code that names the vault; ``""``: the variable does.
        rounds: ranks that train by themselves between two meetings, or None.
        by_steps: whether the loop goes over step numbers, or by a counter, and not over batches.
    """

    script: Script
    loop: Loop
    names: Names
    variables: Variables
    ckpt: str
    vault: str
    rounds: LocalRounds | None
    by_steps: bool

    def edit(self, start: str, also: str = "") -> Edit:
        """Return the edit; ``start``: the variable that gets the first step still to do; ``also``: another one."""
        names, ckpt, kept = self.names, self.ckpt, self.variables
        given = self._given()
        lines = [f"{ckpt} = Checkpointer({', '.join([*([self.vault] if self.vault else []), *given])})"]
        known = prepared(self.script) if names.accelerator else set()
        others = [*names.models[1:], *names.others]
        if names.accelerator and names.scheduler and names.scheduler not in known:
            others.insert(0, names.scheduler)
        lines += self._added([name for name in others if name not in known])
        lines.append(f"{start} = {ckpt}.resume()" if start else f"{ckpt}.resume()")
        if also:
            lines.append(f"{also} = {start}")
        option = option_in(self.script, self.loop.top)
        if option:  # what was asked for is what the vault's run has begun with
            lines += [f"if {start or lines.pop()}:", f"    {option} = None"]
        lines += [f"{name} = {_unset(name)}" for name in kept.loop if name in kept.unset]
        lines += [f'{name} = locals().get("{name}")' for name in kept.loop if name in kept.gone]
        lines += carry_lines(ckpt, kept.loop) if kept.loop else []
        contents = [(name, f"Checkpointer.contents({name})") for name in kept.contents]
        stay: list[str | tuple[str, str]] = [*kept.objects, *contents]
        lines += carry_lines(ckpt, stay, assign=False) if stay else []
        lines += [one.line(ckpt) for one in kept.members]
        if self.rounds is not None:
            lines += carry_lines(ckpt, [self.rounds.model, names.optimizer], assign=False)
        return self.script.lines_before(self.loop.top, lines, self._why(others))

    def _given(self) -> list[str]:
        names = self.names
        if names.accelerator:
            return [f"accelerator={names.accelerator}"]
        given = {"model": names.models[:1], "optimizer": [names.optimizer], "scheduler": [names.scheduler]}
        return [f"{kind}={one}" for kind, listed in given.items() for one in listed if one]

    def _added(self, others: list[str]) -> list[str]:
        """Return the lines that name what is saved beside model, optimizer and scheduler."""
        taken = {"model", "optimizer", "scheduler"}
        lines = [f'{self.ckpt}.add("{key_of(name, taken)}", {name})' for name in others]
        lasting = lasting_gradients(self.script, self.loop, self.names)
        lasting = lasting or kept_gradients(self.script, self.loop, self.names)
        for model in lasting:
            key = key_of(f"{model}_gradients" if len(lasting) > 1 else "gradients", taken)
            lines.append(f'{self.ckpt}.add("{key}", Checkpointer.gradients({model}))')
        for path in self.variables.files:
            stem = re.search(r"(\w+)(?:\.\w+)*[\"']\s*\)*$", path)
            key = key_of(stem[1] if stem else "file", taken)
            lines.append(f'{self.ckpt}.add("{key}", Checkpointer.file({path}))')
        return lines

    def _why(self, others: list[str]) -> str:
        names, kept = self.names, self.variables
        what = (
            "all that the accelerator has prepared"
            if names.accelerator
            else ", ".join(filter(None, [*names.models[:1], names.optimizer, names.scheduler]))
        )
        listed = [*others, *kept.files, *kept.loop, *kept.objects, *kept.contents]
        listed += [one.name for one in kept.members]
        return (
            f"Saved, and brought back by resume(): {what}{''.join(f', {name}' for name in listed)}, random numbers"
            f"{'' if self.by_steps else ', the position in the data'}."
        )


def _unset(name: str) -> str:
    """Return the code of what a name is that nothing sets ahead of the loop; an attribute may be set elsewhere."""
    owner, _, attribute = name.rpartition(".")
    return f'getattr({owner}, "{attribute}", None)' if owner else "None"
