"""What is said behind steps of a loop: it can't be seen ahead of them."""

from __future__ import annotations

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.loops.folder import LoopFiles
from vaultlayer_hf.loops.objects import Stateful
from vaultlayer_hf.session.save.beside import say_what_is_gone
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.zero_rates import ZeroRates


class BehindSteps:
    """Looks, behind steps, at what this start lacks.

    Args:
        session: of the run.
        state: the objects of the training.
        files: they have noted what a script's own files were at the checkpoint.
        goes_on: the loop goes on from a checkpoint.
    """

    def __init__(self, session: Session, state: Stateful, files: LoopFiles, *, goes_on: bool) -> None:
        self._session, self._state, self._files = session, state, files
        self._rates = ZeroRates(goes_on=goes_on)

    def step_done(self) -> None:
        """Say what there is to say: files of the checkpoint's time that are missing, and rates that are 0."""
        events, lead = self._session.events, self._session.ranks.rank == 0
        noted, self._files.beside = self._files.beside, None
        if noted is not None and lead:
            say_what_is_gone(events, *noted, self._session.output_dir)
        said = self._rates.step_done(self._state.optimizers, self._state.schedulers)
        if said and lead:
            events.warn(EventKind.NOTICE, said)
