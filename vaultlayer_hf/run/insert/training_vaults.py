"""The vaults of a script that trains several times: one for each training, below the one that is named."""

from __future__ import annotations

from vaultlayer_hf.run.insert.pass_down import argument_edit, parameter_edit
from vaultlayer_hf.run.insert.source import Edit, Script
from vaultlayer_hf.run.insert.trainings import Trainings


def vaults_of(script: Script, trainings: Trainings, vault: str) -> tuple[str, list[Edit], str]:
    """Return the code that names a training's vault where it begins, the edits that this needs, and what to say of it.

    ``vault``: the code of the one that is named, a string in double quotes.
    """
    below = vault[:-1].rstrip("/")
    if trainings.around is not None:
        variable = trainings.number
        escaped = below.replace("{", "{{").replace("}", "}}")
        return f'f{escaped}/{variable}-{{{variable}}}"', [], _remark(f"{below[1:]}/{variable}-…")
    function = trainings.function
    name = script.free("vault", "vault_uri", "vault_of_run")
    why = f"Each call of {function.name.value}() is a training, with a vault of its own."
    edits = [parameter_edit(script, name, function, why)]
    for number, call in enumerate(trainings.calls, 1):
        code = f'{below}/{function.name.value}-{number}"'
        edits.append(argument_edit(script, name, code, call, why))
    return name, edits, _remark(f"{below[1:]}/{function.name.value}-…")


def _remark(vaults: str) -> str:
    return (
        f"Each training has a vault of its own, {vaults}: a run that is started again goes through those that are over "
        "without training."
    )
