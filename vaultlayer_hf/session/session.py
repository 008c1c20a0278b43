"""What a rank holds of a run on a vault: the claim, where it is among the ranks, and the uploader.

``resume`` (start/resume.py) fills it: it claims, and brings what to go on from. From then on ``Training`` (training.py)
drives it. Start-up errors are raised, typed, on all ranks; from the first step on nothing is raised but FencedError,
and that only where it is asked for. Methods that say *all ranks* must be called by all of them in the same order.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import FencedError
from vaultlayer_hf.session.access import Access, Claim
from vaultlayer_hf.session.lock import LAST_HOLDER_SECONDS, OutputLock
from vaultlayer_hf.session.output_dir import checkpoints, former_output_dirs
from vaultlayer_hf.session.place import Topology, find_topology
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.log.entry import Commit, Entry, VaultState
from vaultlayer_hf.vault.log.log import Writer
from vaultlayer_hf.vault.retention.policy import Policy
from vaultlayer_hf.vault.retention.tidy import clear_superseded, tidy_local
from vaultlayer_hf.vault.snapshot import LOCAL, local_folder
from vaultlayer_hf.vault.upload.sending import folder_name
from vaultlayer_hf.vault.upload.uploader import Uploader


class Session:
    """One run on one vault, seen from one rank.

        session = Session(Settings(vault="s3://bucket/my-run"), Path("out"))
        path = resume(session, files)  # claims; or session.enter(), to claim alone
        session.close()

    Args:
        settings: options; ``settings.vault`` names the vault.
        output_dir: where checkpoint folders and snapshots lie.
        ranks: the ranks of the run; a single one if None.
        events: where to tell what happens; made here if None.
        store: the store to use instead of the one that the URI names; for tests and for special stores.
        needs_best: the end of training loads the best checkpoint, so it is kept whatever ``keep_best`` says.
        progress: show progress bars.
        at_step: the step to go back to, whatever was trained since; wins over the address's.

    Raises SettingsError (VaultUriError) for a vault that can't be meant, MissingExtraError.
    """

    def __init__(
        self,
        settings: Settings,
        output_dir: Path,
        *,
        ranks: Ranks | None = None,
        events: Events | None = None,
        store: Store | None = None,
        needs_best: bool = False,
        progress: bool = True,
        at_step: int | None = None,
    ) -> None:
        self.settings = settings
        self.ranks = ranks or Ranks()
        self.events = events or Events()
        self.events.rank = self.ranks.rank
        self.events.host = platform.node() if self.ranks.world_size > 1 else ""
        self.access = Access(settings, self.events, store)
        self.address = self.access.address
        self.origin: Access | None = None
        """The vault that this run is to be a fork of: only read."""
        if settings.fork is not None:
            self.origin = Access(replace(settings, vault=settings.fork, fork=None), self.events, create=False)
        self.forked: Commit | None = None
        """The commit of ``origin`` that this start has begun from; None for any other start."""
        self.output_dir = output_dir.absolute()
        self.former = former_output_dirs(self.output_dir)
        self.lock = OutputLock(self.output_dir, self.address.uri, self.events)
        self.progress, self.at_step = progress, at_step
        self.goes_back = False  # this start goes on from an older step on purpose
        self._needs_best = needs_best
        self._keep_best = settings.keep_best or needs_best
        self._commits: dict[int, Commit] = {}
        self.standing: set[str] = set()
        """Names of checkpoint folders that were there at the start, or that this run has saved."""
        self.noted: dict[str, Any] = {}  # what the claim's entry is to note besides
        self.claim: Claim | None = None
        self.topology: Topology | None = None
        self._writer: Writer | None = None
        self._uploader: Uploader | None = None
        self._seq = self.step = 0
        self._used_names: set[str] = set()
        self._lock = threading.Lock()
        self.resumed_from: int | None = None
        self.read_back: set[int] = set()
        """Numbers of commits of which this process has read every file from the vault, and found it whole."""
        self.nonfinite: set[int] = set()  # steps whose weights or loss are nan, as far as is known
        self.disabled = False
        self._best_step: int | None = None
        self.part_bytes: int | None = None  # of this node's part of a checkpoint; None while that isn't known
        self.save_stall = 0.0  # seconds that a save keeps training waiting, so far; noted with each commit

    def __repr__(self) -> str:
        claim = f"token {self.claim.token}" if self.claim is not None else "not claimed"
        return f"Session({str(self.address)!r}, rank {self.ranks.rank} of {self.ranks.world_size}, {claim})"

    # Start ---------------------------------------------------------------------------------------------

    def enter(self, check: Callable[[int, Entry | None], Mapping[str, Any]] = lambda *_: {}) -> Claim:
        """Claim the vault on rank 0, and let all ranks know. All ranks.

        ``check`` sees the last number of the log and its newest whole entry before anything is claimed; it may raise,
        and returns what the claim's entry notes.
        Raises VaultUnreachableError, CorruptError, RanksError; SettingsError where another run uses ``output_dir``.
        """
        looked: list[tuple[tuple[int, Entry | None], Mapping[str, Any]]] = []

        def look() -> None:
            seen = self.access.last()
            looked.append((seen, {**check(*seen), **self.noted}))

        def claim() -> Claim:
            self._writer, before = self.access.claim(*looked[-1])
            return Claim(self._writer.token, self._writer.state.vault_id, before.state if before else None)

        # Nothing is written, here or there, before it is known that the vault is the right one.
        self.ranks.on_rank_zero(look, within=3 * self.settings.resume_timeout)
        self.topology = find_topology(self.ranks, self.output_dir / LOCAL)
        try:
            self.ranks.on_every_rank(lambda: self.lock.acquire() if self.leads_node else None)
            self.claim = self.ranks.on_rank_zero(claim, within=3 * self.settings.resume_timeout)
            self.ranks.on_every_rank(
                lambda: self.lock.wait_for_last_holder() if self.leads_node else None,
                timeout=self.ranks.timeout + LAST_HOLDER_SECONDS,
            )
        except BaseException:
            self.lock.release()
            raise
        before = self.claim.before
        self._commits = {commit.number: commit for commit in before.commits} if before else {}
        return self.claim

    @property
    def entered(self) -> Claim:
        """The claim. Only after ``enter``."""
        if self.claim is None:
            raise RuntimeError("the vault isn't claimed yet")
        return self.claim

    @property
    def leads_node(self) -> bool:
        """Whether this rank looks after the disk of its node."""
        return self.topology is None or self.topology.leads_node

    @property
    def node(self) -> int:
        """The number of this rank's node."""
        return 0 if self.topology is None else self.topology.node

    @property
    def state(self) -> VaultState:
        """The state of the vault as far as this rank knows it."""
        if self._writer is not None:
            return self._writer.state
        claim = self.entered
        return (claim.before or VaultState(claim.vault_id, claim.token)).claimed(claim.token)

    @property
    def writer(self) -> Writer | None:
        """The claim under which to append to the log; None on ranks other than 0."""
        return self._writer

    @property
    def uploader(self) -> Uploader | None:
        """The background uploader; None on ranks that lead no node, and before and after training."""
        return self._uploader

    @property
    def snapshots(self) -> Path:
        """The folder of this writer's snapshots."""
        return local_folder(self.output_dir, self.entered.vault_id, self.entered.token)

    def next_seq(self) -> int:
        """Return the number of the next save of this writer, from 1; the same on all ranks."""
        self._seq += 1
        return self._seq

    @property
    def coming_seq(self) -> int:
        """What ``next_seq`` will return."""
        return self._seq + 1

    def warn_all(self, kind: EventKind, message: str, **fields: object) -> None:
        """Warn of something that all ranks have learnt alike: on rank 0, for all."""
        if self.ranks.rank == 0:
            self.events.warn(kind, message, **fields)

    def start_uploads(self, resumed_from: Commit | None, *, spared: Collection[Commit] = ()) -> None:
        """Make the background uploader, behind the commit that this run goes on from; on leaders. All ranks.

        ``spared``: commits that this run doesn't go on from, and that are never retired while it lives.
        Raises, on all ranks, VaultUnreachableError, MissingExtraError, ResumeError (a disk).
        """
        self.resumed_from = resumed_from.number if resumed_from else None
        self.part_bytes = resumed_from.bytes if resumed_from else None
        self.ranks.on_every_rank(
            lambda: self._make_uploader(resumed_from, spared) if self.leads_node else None
        )

    def _make_uploader(self, resumed_from: Commit | None, spared: Collection[Commit]) -> None:
        self.standing = {path.name for path in checkpoints(self.output_dir).values()}
        if self._uploader is not None:
            self._uploader.stop()
        self._uploader = Uploader(
            self.access.bare,
            self._writer,
            self.events,
            node=self.node,
            policy=Policy(self.settings.keep_last, self.settings.keep_every, self._keep_best),
            resumed_from=resumed_from,
            known=resumed_from if resumed_from and resumed_from.number in self.read_back else None,
            rate=self.settings.rate,
            current_step=lambda: self.step,
            after_commit=self._after_commit,
            part_timeout=self.settings.part_timeout,
            keeps_best=self._needs_best,
            measured=lambda: {"stall": round(self.save_stall, 6)},
            protected={commit.number for commit in spared},
            begins_at=getattr(resumed_from or self.forked, "step", 0),
        )

    def name_folder(self, name: str, seq: int) -> str:
        """Choose the name of a checkpoint's folder in the vault. On rank 0."""
        return folder_name(name, seq, self._used_names)

    def stop_if_fenced(self, reason: str | None) -> None:
        """Stop as the settings say, where there is a reason. Raises FencedError."""
        if reason is None or self.disabled:
            return
        self.disabled = True
        if self.settings.on_fenced == "stop":
            raise FencedError(reason)
        self.events.warn(EventKind.FENCED, "training goes on without a vault: on_fenced is 'continue'")

    def release_uploader(self) -> Uploader | None:
        """Hand the uploader to whoever ends it; None where that is done already. On any thread."""
        with self._lock:
            uploader, self._uploader = self._uploader, None
        return uploader

    def forget(self) -> None:
        """In a forked child: leave the vault to the parent, whose threads aren't here, without a word."""
        self.disabled, self._uploader, self._writer = True, None, None
        self._lock = threading.Lock()
        self.ranks.forget()

    def close(self) -> None:
        """Let go of the vault at once, without waiting for uploads; safe to call twice."""
        uploader = self.release_uploader()
        if uploader is not None:
            uploader.stop()
        self.lock.release()

    def newest_commits(self, count: int) -> tuple[Commit, ...]:
        """Return the newest commits that this rank knows of, oldest first."""
        known = list(self._commits.values())  # one step: the upload thread may add to it meanwhile
        return tuple(sorted(known, key=lambda commit: commit.number)[-count:])

    def learn(self, commits: Sequence[Commit], best_step: int | None) -> None:
        """Take note of commits that rank 0 has made."""
        self._commits |= {commit.number: commit for commit in commits}
        self._best_step = best_step

    def _after_commit(self, commit: Commit) -> None:
        self._commits[commit.number] = commit
        clear_superseded(self.output_dir, self.snapshots, commit.step, self.former)

    def apply_local_retention(self) -> None:
        """Keep as many committed folders in ``output_dir`` as the settings say; on the training thread only."""
        settings = self.settings
        if not self.leads_node or (settings.local_keep_last is None and settings.local_keep_every is None):
            return
        # With those that the vault has retired: their folders may still be here.
        known = tuple(commit for _, commit in sorted(self._commits.items()))
        policy = Policy(settings.local_keep_last, settings.local_keep_every, self._keep_best)
        try:
            best = self.state.best_step if self._writer is not None else self._best_step
            state = replace(self.state, commits=known, best_step=best)
            finite = [commit.number for commit in known if commit.step not in self.nonfinite]
            tidy_local(self.output_dir, state, policy, set(finite[-1:] if self.nonfinite else ()))
        except OSError as error:
            self.events.warn_once(
                "local",
                EventKind.TROUBLE,
                f"old checkpoints can't be taken out of {self.output_dir}: {error}",
            )
