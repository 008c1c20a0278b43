"""The engines by name, in the order in which ``any`` tries them."""

from __future__ import annotations

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.engine import Engine
from vaultlayer_hf.run.engines.jobs.k8s import Kubernetes
from vaultlayer_hf.run.engines.jobs.ray import Ray
from vaultlayer_hf.run.engines.jobs.sky import Sky
from vaultlayer_hf.run.engines.jobs.slurm import Slurm

ANY = "any"
HERE = "local"
_ENGINES: dict[str, type[Engine]] = {"slurm": Slurm, "ray": Ray, "k8s": Kubernetes, "sky": Sky}
NAMES = tuple(_ENGINES)


def engine(name: str) -> Engine:
    """Return an engine. Raises SettingsError for a name that is none."""
    if name not in _ENGINES:
        raise SettingsError(f"there is no engine {name!r}: there are {', '.join(NAMES)}")
    return _ENGINES[name]()


def parse_engines(text: str) -> list[str]:
    """Return the names that ``--on`` asks for, in order: ``slurm``, ``slurm,local``, ``any``. Raises SettingsError."""
    names = [word.strip() for word in text.split(",") if word.strip()]
    wrong = [name for name in names if name not in (*NAMES, HERE, ANY)]
    if wrong or not names:
        raise SettingsError(
            f"--on {text}: there is no engine {', '.join(wrong) or 'named'}; there are {', '.join(NAMES)}, {HERE} (run "
            f"it here) and {ANY} (the first of them that takes it); several are tried in order: slurm,ray"
        )
    found = [one for name in names for one in (NAMES if name == ANY else (name,))]
    return list(dict.fromkeys(found))
