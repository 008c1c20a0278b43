"""Which vault a program gets: the option, VAULTLAYER_VAULT, the project's configuration, or a folder beside the script.

[tool.vaultlayer]                     # in pyproject.toml; in vaultlayer.toml without the heading
vault = "s3://bucket/my-run"
keep_last = 5                         # any other option of Settings, too
spare = false                         # of `vl run` itself: keep no interpreter ready for a quick restart
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.journal import run_folder
from vaultlayer_hf.run.program import script_of
from vaultlayer_hf.session.option_names import check_variables, no_such
from vaultlayer_hf.session.settings import settings_table


@dataclass(frozen=True)
class Choice:
    """The vault, where its name is from, and more variables that the configuration asks for.

    Attributes:
        uri: as it was written; for the default, a path.
        source: option, variable, config or default.
        variables: VAULTLAYER_* by name.
        where: the configuration file, or None.
        spare: whether an interpreter is kept ready.
    """

    uri: str
    source: str
    variables: dict[str, str]
    where: Path | None = None
    spare: bool = True


def choose_vault(option: str | None, command: Sequence[str]) -> Choice:
    """Return the vault for a command. Raises SettingsError for a configuration that can't be meant."""
    script = script_of(command)
    where, config = _configuration(script.absolute().parent if script else Path.cwd())
    vault = config.pop("vault", None)
    spare = config.pop("spare", True)
    if not isinstance(spare, bool):
        raise SettingsError(f"{where}: spare = {spare!r} is neither true nor false")
    known = {field: variable for variable, field in settings_table()}
    check_variables(os.environ, known)
    if unknown := set(config) - set(known):
        raise SettingsError(f"{where}: {no_such('option', unknown, [*known, 'spare'])}")
    variables = {known[name]: str(value) for name, value in config.items()}
    if option:
        return Choice(option, "option", variables, where, spare)
    named = os.environ.get("VAULTLAYER_VAULT", "").strip()
    if named:
        return Choice(named, "variable", variables, where, spare)
    if vault is not None:
        if not isinstance(vault, str):
            raise SettingsError(f"{where}: vault = {vault!r} is no URI: write it as a string")
        return Choice(vault, "config", variables, where, spare)
    # Another command line is another run: it must not go on from this one's checkpoints.
    digest = hashlib.sha256("\0".join(command).encode()).hexdigest()[:8]
    name = f"vault-{script.stem if script else 'module'}-{digest}"
    return Choice(str(run_folder(script) / name), "default", variables, where, spare)


def _configuration(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """Return the nearest configuration at or above a folder, and what it says."""
    for parent in (folder, *folder.parents):
        for name in ("vaultlayer.toml", "pyproject.toml"):
            path = parent / name
            if not path.is_file():
                continue
            try:
                data = tomllib.loads(path.read_text())
            except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
                if name == "pyproject.toml":
                    continue  # somebody else's to complain about
                raise SettingsError(f"{path} can't be read: {error}") from error
            found = data if name == "vaultlayer.toml" else data.get("tool", {}).get("vaultlayer")
            if isinstance(found, dict):
                return path, dict(found)
    return None, {}
