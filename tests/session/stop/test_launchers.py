"""What torchrun's agent makes of the signals that a training waits for."""

from __future__ import annotations

import pytest

from vaultlayer_hf.session.stop.launchers import deadly_signals, short_shutdown

AGENT = {"TORCHELASTIC_RUN_ID": "none"}


@pytest.mark.parametrize(
    ("signals", "variables", "words"),
    [
        (["SIGTERM", "SIGINT"], AGENT, ""),
        (["SIGTERM", "SIGUSR1"], {}, ""),
        (["SIGTERM", "SIGUSR1"], AGENT, "torchrun itself dies of SIGUSR1"),
        (["SIGUSR1", "SIGUSR2"], AGENT, "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"),
        (["SIGUSR1"], AGENT | {"TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGTERM, SIGUSR1"}, ""),
    ],
)
def test_a_signal_that_ends_torchrun_itself(
    signals: list[str], variables: dict[str, str], words: str
) -> None:
    """Signals that its agent doesn't handle kill it: that is said, with what to tell it."""
    found = deadly_signals(signals, variables)
    assert words in found
    assert bool(words) == bool(found)


@pytest.mark.parametrize(
    ("grace", "variables", "words"),
    [
        (30.0, AGENT, ""),
        (300.0, {}, ""),
        (300.0, AGENT, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT=300"),
        (300.0, AGENT | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "300"}, ""),
        (300.0, AGENT | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "long"}, "kills its workers 30 s after"),
    ],
)
def test_a_grace_that_torchrun_does_not_grant(grace: float, variables: dict[str, str], words: str) -> None:
    """Its agent kills workers 30 seconds behind a signal that it gets, too: a longer grace is said to be none."""
    found = short_shutdown(grace, variables)
    assert words in found
    assert bool(words) == bool(found)
