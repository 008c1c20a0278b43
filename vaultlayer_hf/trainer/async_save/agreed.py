"""What the ranks of a training agree on at their saves: all of them save beside it, at the same steps, or none does.

The premise: between two steps a rank is at most one step ahead of another, and a save holds collectives. So a rank may
neither save in another way than the others nor let its checkpoint appear at another step. One rank alone agrees with
itself at once.
"""

from __future__ import annotations

from collections.abc import Callable

from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.session.save.async_trouble import in_words
from vaultlayer_hf.session.save.full_disk import is_disk_trouble
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.capture.fit import Fit, slowest

_Report = tuple[str | None, bool, bool]


class Agreed:
    """The rounds of one training's saves. All ranks call every method, in the same order, on the training thread.

    Args:
        session: of this rank.

    Attributes:
        alone: whether there is one rank.
        leads: whether this rank makes, names and removes the folders of its ``output_dir``.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.alone = session.ranks.world_size == 1
        self.leads = session.leads_node
        self._save = 0
        self._round = 0

    def begin(self, takes: bool, reader: str) -> tuple[bool, str]:
        """Begin a save; return whether it runs beside the training, and who may read its folder in on_save.

        Args:
            takes: whether this rank can have it run beside the training.
            reader: a callback on this rank that may read the folder; empty: none.
        """
        self._save, self._round = self._save + 1, 0
        if self.alone:
            return takes, reader

        def agree(found: list[tuple[bool, str]]) -> tuple[bool, str]:
            return all(one for one, _ in found), next((one for _, one in found if one), "")

        try:
            return self._session.ranks.decide((takes, reader), agree, tag=self._tag(), timeout=self._timeout)
        except RanksError:  # stock's save asks them again, and says what is wrong
            return False, reader

    def captured(self, error: Exception | None, beside: bool) -> _Report:
        """Return what failed on any rank, None where nothing did; whether that lasts; whether any has a copy to write.

        What doesn't last is trouble of the disk, and a rank that doesn't answer.
        """
        lasting = error is not None and not is_disk_trouble(error, self._session.output_dir)

        def agree(found: list[_Report]) -> _Report:
            failed = [(rank, text) for rank, (text, _, _) in enumerate(found) if text is not None]
            words = self._worded(*failed[0]) if failed else None
            return words, any(lasts for _, lasts, _ in found), any(copy for _, _, copy in found)

        report = (None if error is None else in_words(error), lasting, beside)
        try:
            return self._session.ranks.decide(report, agree, tag=self._tag(), timeout=self._timeout)
        except RanksError as missing:
            return str(missing), False, False

    def failure(self, do: Callable[[], object]) -> str | None:
        """Do something on every rank; return what failed on any, None where nothing did. Raises nothing of it."""
        error = None
        try:
            do()
        except Exception as found:
            error = found
        return self.captured(error, False)[0]

    def due(self, step: int, written: bool) -> bool:
        """Tell, at the end of a step, whether the checkpoint that is written appears now, on all ranks.

        Rank 0, which writes the model, asks for it once it has written; see ``Ranks.request``.
        """
        ranks = self._session.ranks
        if self.alone:
            return written
        wanted = "appear" if written and ranks.rank == 0 else None
        return ranks.request(step, wanted, f"appear/{self._save}") is not None

    @property
    def _timeout(self) -> float:
        return self._session.settings.part_timeout

    def _tag(self) -> str:
        self._round += 1
        return f"beside/{self._save}/{self._round}"

    def _worded(self, rank: int, text: str) -> str:
        return text if self.alone else f"rank {rank}: {text}"


def agreed_fit(session: Session, fit: Fit) -> Fit:
    """Return how all ranks save, given how this one could: as the one that can least. All ranks."""
    if session.ranks.world_size == 1:
        return fit
    try:
        found = session.ranks.gather((fit.mode, fit.reason))
    except RanksError as error:
        return Fit("waiting", str(error))
    return slowest([Fit(mode, reason) for mode, reason in found])
