"""What torchrun's agent does with the signals that a training waits for. Pure: settings and variables in, words out.

Slurm signals every process of a job step, so the agent gets what its workers get. It dies at once of a signal that it
doesn't handle, and with it the store through which the ranks agree: nothing is saved then. One that it handles it
passes on, and kills its workers after a time-out of its own, which its launcher hands to them by no variable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_HANDLED = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"
"""What the agent handles where nothing else is asked for. Its workers see what it was asked for: newer releases put the
option ``--signals-to-handle`` into the variable, older ones read the variable alone."""
_SHUTDOWN_TIMEOUT = 30.0
"""Seconds from a signal that the agent handles to the kill of its workers, in all releases."""


def deadly_signals(signals: Sequence[str], variables: Mapping[str, str]) -> str:
    """Return what is wrong with these signals under torchrun, and the fix; empty where nothing is.

    Args:
        signals: names of signals that announce the end.
        variables: of this process's environment.
    """
    if "TORCHELASTIC_RUN_ID" not in variables:
        return ""
    handled = [name.strip() for name in variables.get("TORCHELASTIC_SIGNALS_TO_HANDLE", _HANDLED).split(",")]
    deadly = [name for name in signals if name not in handled]
    if not deadly:
        return ""
    return (
        f"torchrun itself dies of {', '.join(deadly)}, which Slurm sends to it, too, and then nothing is saved: have "
        "SIGTERM sent ahead of time (--signal=TERM@300), or start it with "
        f"--signals-to-handle={','.join([*handled, *deadly])} (releases without that option read the variable "
        "TORCHELASTIC_SIGNALS_TO_HANDLE)"
    )


def short_shutdown(grace: float, variables: Mapping[str, str]) -> str:
    """Return what torchrun makes of a grace of so many seconds, and the fix; empty where it keeps to it.

    Args:
        grace: seconds from a signal to the kill.
        variables: of this process's environment.
    """
    try:
        limit = float(variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    except (KeyError, ValueError):
        limit = _SHUTDOWN_TIMEOUT
    if "TORCHELASTIC_RUN_ID" not in variables or grace <= limit:
        return ""
    return (
        f"torchrun kills its workers {limit:g} s after a signal that it gets, too, unless its --shutdown-timeout says "
        f"otherwise, and grace is {grace:g} s: set TORCH_ELASTIC_SHUTDOWN_TIMEOUT={grace:g}, which newer releases "
        "read, or make grace shorter"
    )
