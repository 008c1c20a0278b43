"""Begins to save beside a training, where the settings ask for it and that is safe."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.session.training import Training
from vaultlayer_hf.trainer.async_save.facts import facts_of
from vaultlayer_hf.trainer.async_save.fit import choose
from vaultlayer_hf.trainer.async_save.guard import Guard
from vaultlayer_hf.trainer.async_save.saves import AsyncSaves, say_fit


def begin(trainer: Any, training: Training) -> Guard | None:
    """Return what saves beside this training, and guards it; None where its saves stay stock's, which is said."""
    session = training.session
    wanted = session.settings.async_save == "auto"
    if not wanted:
        return None
    fit = choose(facts_of(trainer, wanted=wanted, world_size=session.ranks.world_size))
    say_fit(training, fit)
    return Guard(trainer, AsyncSaves(trainer, training, fit)) if fit.mode != "stock" else None
