"""Which vault a program gets: the option, VAULTLAYER_VAULT, the project's configuration, or a folder beside the script.

[tool.vaultlayer]                     # in pyproject.toml; in vaultlayer.toml without the heading
vault = "s3://bucket/my-run"
keep_last = 5                         # any other option of Settings, too
spare = false                         # of `vl run` itself: keep no interpreter ready for a quick restart
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
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
from vaultlayer_hf.stores.uri import VaultAddress


@dataclass(frozen=True)
class Choice:
    """The vault, where its name is from, and more variables that the configuration asks for.

    Attributes:
        uri: as it was written; for the default, a path.
        source: option, variable, config or default.
        variables: VAULTLAYER_* by name.
        where: the configuration file, or None.
        spare: whether an interpreter is kept ready.
        other: where the default begins at step 0, the vault that another command line of this script trained into last.
    """

    uri: str
    source: str
    variables: dict[str, str]
    where: Path | None = None
    spare: bool = True
    other: Path | None = None


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
    folder, other = _beside(script, command)
    return Choice(str(folder), "default", variables, where, spare, other)


def which_vault(address: VaultAddress, choice: Choice) -> str:
    """Return the sentence that says which vault it is, and where its name is from."""
    text = f"the vault, unless the script names one, is {address.uri}"
    if choice.source == "default":
        return f"{text}: it doesn't survive the loss of this machine; --vault s3://… does"
    source = {"option": "", "variable": " (VAULTLAYER_VAULT)", "config": f" ({choice.where})"}[choice.source]
    back = "the best checkpoint" if address.best else f"step {address.step}"
    return f"{text}{source}" + (f"; the run goes back to {back}, once" if address.named else "")


def _beside(script: Path | None, command: Sequence[str]) -> tuple[Path, Path | None]:
    """Return the vault of a command line beside its script; where it is new, also the last one of another line."""
    home = run_folder(script)
    stem = f"vault-{script.stem if script else 'module'}-"

    def named(words: Sequence[str]) -> Path:
        # Another command line is another run: it must not go on from this one's checkpoints.
        return home / f"{stem}{hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:8]}"

    mine = named(command)
    if script is None or mine.exists():
        return mine, None
    for alike in _spellings(command):
        if named(alike).exists():
            return named(alike), None
    logs = [path for path in home.glob(f"{glob.escape(stem)}*/log") if path.is_dir()]
    return mine, max(logs, key=lambda path: path.stat().st_mtime).parent if logs else None


def _spellings(command: Sequence[str]) -> list[list[str]]:
    """Return the other ways in which a script that Python runs may have been named: with a Python before it or bare."""
    words = list(command)
    if os.path.basename(words[0]).startswith("python"):
        words = words[1:]
    if not words or not words[0].endswith(".py"):
        return []
    return [words, *([python, *words] for python in ("python", "python3", sys.executable))]


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
