"""Begins to save beside a training, where the settings ask for it and that is safe.

It isn't the default. Its files are stock's, its kills lose nothing more, and a save holds training up for a twentieth
of the time; but it hasn't been shown that a whole run is shorter with it where no core is left over, nor that it works
on a GPU: the figures are in tests/benchmarks/README.md.
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.session.save.async_trouble import AsyncTrouble
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.capture.fit import Fit
from vaultlayer_hf.trainer.async_save.agreed import agreed_fit
from vaultlayer_hf.trainer.async_save.facts import facts_of
from vaultlayer_hf.trainer.async_save.fit import choose
from vaultlayer_hf.trainer.async_save.guard import CaptureGuard
from vaultlayer_hf.trainer.async_save.saves import AsyncSaves
from vaultlayer_hf.trainer.saved_best import SavedBest


def begin(trainer: Any, training: Training, best: SavedBest) -> CaptureGuard | None:
    """Return what saves beside this training, and guards it; None where its saves stay stock's, which is said.

    All ranks.
    """
    session = training.session
    wanted = session.settings.async_save == "auto"
    try:
        fit = choose(facts_of(trainer, wanted=wanted)) if wanted else Fit("waiting")
    except Exception as error:  # a model or an optimizer of the script's own may answer in any way
        fit = Fit("waiting", f"what is trained can't be looked into: {type(error).__name__}: {error}")
    fit = agreed_fit(session, fit)  # also where this rank isn't asked: the others wait for its answer
    trouble = AsyncTrouble(session)
    trouble.say(fit)
    if fit.mode == "waiting":
        return None
    return CaptureGuard(trainer, AsyncSaves(trainer, training, fit, trouble, best))
