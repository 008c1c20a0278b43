"""What `vl run` says of a decision. Pure."""

from __future__ import annotations

from vaultlayer_hf.run.decide.decision import Action, RestartDecision


def last_line(decision: RestartDecision) -> str:
    """Return what is said where no attempt follows, and the program hasn't ended well."""
    # "Told to end" are the words of the guides and of exit code 75; that it goes on later is the reason's.
    head = "told to end" if decision.action is Action.LEAVE else "stop"
    return f"{head}: {decision.detail}; {decision.reason}"


def next_step(decision: RestartDecision) -> str:
    """Return what is said where another attempt follows."""
    wait = f" in {decision.wait:.0f} s" if decision.wait >= 1 else ""
    return f"restarting{wait}: {decision.reason}"
