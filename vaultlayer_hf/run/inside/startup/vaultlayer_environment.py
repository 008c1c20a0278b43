"""The environment of a spare interpreter: what `vl run` sets anew, and what Python's own start has changed."""

import os

_OWN = "VAULTLAYER_RUN_"
_TIGHT = "VAULTLAYER_LOCAL_KEEP_LAST"


def is_own_variable(name: str) -> bool:
    """Tell whether `vl run` sets this variable anew for each attempt; as vaultlayer_hf/run/imports.py has it."""
    return name.startswith(_OWN) or name == _TIGHT


def own_environment() -> "dict[str, str]":
    """Return the environment without the variables of `vl run` itself, which differ from attempt to attempt."""
    return {name: value for name, value in os.environ.items() if not is_own_variable(name)}


def become(environment: "dict[str, str]") -> None:
    """Change os.environ to this, but for the variables of `vl run`."""
    own = {name: value for name, value in os.environ.items() if is_own_variable(name)}
    become_all({**{name: value for name, value in environment.items() if not is_own_variable(name)}, **own})


def become_all(environment: "dict[str, str]") -> None:
    """Change os.environ to this, whole. What stays keeps its place in memory, by which setproctitle finds its way."""
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def born_environment() -> "dict[str, str]":
    """Return the environment that this process was started with, before a .pth file or sitecustomize changed it."""
    with open("/proc/self/environ", "rb") as file:
        pairs = [pair.partition(b"=") for pair in file.read().split(b"\0") if b"=" in pair]
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def changed_since_birth() -> "dict[str, str | None]":
    """Return the variables that Python's start has set, or deleted (None), until now."""
    born, now = born_environment(), dict(os.environ)
    return {
        name: now.get(name)
        for name in {*born, *now}
        if not name.startswith(_OWN) and born.get(name) != now.get(name)
    }


def changed(environment: "dict[str, str]", changes: "dict[str, str | None]") -> "dict[str, str]":
    """Return an environment with these changes."""
    return {name: value for name, value in {**environment, **changes}.items() if value is not None}
