"""A run's life on a vault: enter (claim) -> resume -> save* -> flush -> finish -> close.

The seam (Trainer, callback, later others) drives a session on the training thread of every rank. Start-up
errors are raised, typed, on all ranks; from the first step on nothing is raised but FencedError, and that only
where it is asked for. Methods that say *all ranks* must be called by all of them in the same order.
"""

from __future__ import annotations

import atexit
import math
import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import FencedError, RanksError, StoreError
from vaultlayer_hf.session.access import Access
from vaultlayer_hf.session.output_dir import checkpoints
from vaultlayer_hf.session.place import Topology, find_topology
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.session.save import rounds as saving
from vaultlayer_hf.session.save.pacing import StepDecision, pacer_of
from vaultlayer_hf.session.save.rounds import RankStatus, Save, SaveSummary, UploadPlan
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.session.stop.notice import MARGIN
from vaultlayer_hf.session.stop.stopping import Ending, heed
from vaultlayer_hf.session.stop.watch import NoticeWatch
from vaultlayer_hf.session.waiting import wait_for_uploads
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import folder_key
from vaultlayer_hf.vault.log.entry import Commit, Entry, VaultState
from vaultlayer_hf.vault.log.log import Writer
from vaultlayer_hf.vault.retention.policy import Policy
from vaultlayer_hf.vault.retention.tidy import clear_superseded, clear_trash, tidy_local
from vaultlayer_hf.vault.snapshot import LOCAL, Snapshot, local_folder
from vaultlayer_hf.vault.upload.job import Job
from vaultlayer_hf.vault.upload.sending import folder_name
from vaultlayer_hf.vault.upload.uploader import Uploader

_FAREWELL = 15.0
"""Seconds that the end of a failed training waits for parts of other nodes."""


@dataclass(frozen=True)
class Claim:
    """What all ranks know of the claim.

    Attributes:
        token: the fencing token.
        vault_id: which vault this is.
        before: the state before the claim; None where the vault was empty.
    """

    token: int
    vault_id: str
    before: VaultState | None


class Session:
    """One run on one vault, seen from one rank.

    Args:
        settings: options; ``settings.vault`` names the vault.
        output_dir: where checkpoint folders and snapshots lie.
        ranks: the ranks of the run; a single one if None.
        events: where to tell what happens; made here if None.
        store: the store to use instead of the one that the URI names; for tests and for special stores.
        needs_best: the end of training loads the best checkpoint, so it is kept whatever ``keep_best`` says.
        progress: show progress bars.

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
    ) -> None:
        self.settings = settings
        self.ranks = ranks or Ranks()
        self.events = events or Events()
        self.events.rank = self.ranks.rank
        self.events.host = platform.node() if self.ranks.world_size > 1 else ""
        self.access = Access(settings, self.events, store)
        self.address = self.access.address
        self.output_dir = output_dir.absolute()
        self.progress = progress
        self._needs_best = needs_best
        self._keep_best = settings.keep_best or needs_best
        self._commits: dict[int, Commit] = {}
        self._standing: set[str] = set()
        """Names of checkpoint folders that were there at the start, or that this run has saved."""
        self.claim: Claim | None = None
        self.place: Topology | None = None
        self._writer: Writer | None = None
        self._uploader: Uploader | None = None
        self._seq = 0
        self._used_names: set[str] = set()
        self._lock = threading.Lock()
        self.step = 0
        self.resumed_from: int | None = None
        self.read_back: set[int] = set()
        """Numbers of commits of which this process has read every file from the vault, and found it whole."""
        self.disabled = False
        self._flush_failed = False
        self._under_way = False
        self._best_step: int | None = None
        self.stall_seconds = 0.0
        self.saved_at = 0.0
        """When the last save began, in seconds since the epoch."""
        self.part_bytes: int | None = None
        """Bytes of this node's part of a checkpoint; None while that isn't known."""
        self.ending: Ending | None = None
        """How this training ends, once it was told to stop."""
        self.watch = NoticeWatch(settings.signal_names, settings.grace, settings.notices, self.events)
        self.pacer = pacer_of(self)

    # Start ---------------------------------------------------------------------------------------------

    def enter(self, check: Callable[[int, Entry | None], None] = lambda number, entry: None) -> Claim:
        """Claim the vault on rank 0, and let all ranks know. All ranks.

        ``check`` sees the last number of the log and its newest whole entry before anything is claimed, and may raise.
        Raises VaultUnreachableError, CorruptError, RanksError.
        """

        def claim() -> Claim:
            seen = self.access.last()
            check(*seen)
            self._writer, before = self.access.claim(seen)
            return Claim(self._writer.token, self._writer.state.vault_id, before.state if before else None)

        self.claim = self.ranks.on_rank_zero(claim, within=3 * self.settings.resume_timeout)
        self.place = find_topology(self.ranks, self.output_dir / LOCAL)
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
        return self.place is None or self.place.leads_node

    @property
    def node(self) -> int:
        """The number of this rank's node."""
        return 0 if self.place is None else self.place.node

    @property
    def state(self) -> VaultState:
        """The state of the vault as far as this rank knows it."""
        if self._writer is not None:
            return self._writer.state
        claim = self.entered
        return (claim.before or VaultState(claim.vault_id, claim.token)).claimed(claim.token)

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

    def tell(self, kind: EventKind, message: str, **fields: object) -> None:
        """Warn of something that all ranks have learnt alike: on rank 0, for all."""
        if self.ranks.rank == 0:
            self.events.warn(kind, message, **fields)

    def start_uploads(self, resumed_from: Commit | None, *, passed_over: Commit | None = None) -> None:
        """Make the background uploader, behind the commit that this run goes on from; on leaders. All ranks.

        ``passed_over`` is the newest commit of a vault that this run doesn't go on from: it is never retired.
        Raises, on all ranks, VaultUnreachableError, MissingExtraError.
        """
        self.resumed_from = resumed_from.number if resumed_from else None
        self.part_bytes = resumed_from.bytes if resumed_from else None
        self.ranks.on_every_rank(lambda: self.access.bare if self.leads_node else None)
        if not self.leads_node:
            return
        self._standing = {path.name for path in checkpoints(self.output_dir).values()}
        if self._uploader is not None:
            self._uploader.stop()
        settings = self.settings
        self._uploader = Uploader(
            self.access.bare,
            self._writer,
            self.events,
            node=self.node,
            policy=Policy(settings.keep_last, settings.keep_every, self._keep_best),
            resumed_from=resumed_from,
            known=resumed_from if resumed_from and resumed_from.number in self.read_back else None,
            rate=settings.rate,
            current_step=lambda: self.step,
            after_commit=self._after_commit,
            part_timeout=settings.part_timeout,
            keeps_best=self._needs_best,
            measured=lambda: {"stall": round(self.pacer.stall or 0.0, 6)},
            protected={passed_over.number} if passed_over is not None else (),
        )
        atexit.register(self.close)

    def name_folder(self, name: str, seq: int) -> str:
        """Choose the name of a checkpoint's folder in the vault. On rank 0."""
        return folder_name(name, seq, self._used_names)

    def carry(self, snapshot: Snapshot | None, plan: UploadPlan) -> None:
        """Queue this node's snapshot of a checkpoint that all ranks have agreed on. All ranks."""
        folder = folder_key(self.entered.token, plan.folder)
        if snapshot is None or self._uploader is None:
            return
        job = Job(snapshot, folder, plan.share_of(self.node, snapshot.stats), plan.others)
        self.part_bytes = sum(size for path, (size, _) in snapshot.stats.items() if path in (job.only or ()))
        if self._writer is not None or job.only:
            self._uploader.submit(job)
        else:
            snapshot.remove()

    def settle_uploads(self) -> None:
        """Wait until what is queued on any node is carried or given up. All ranks. Raises RanksError."""
        if self._uploader is not None:
            self._wait(self._uploader)
        self.ranks.gather(None, timeout=self.settings.flush_timeout + 60)

    # Training ------------------------------------------------------------------------------------------

    def before_save(self, folder: Path) -> None:
        """Remove a checkpoint folder that is about to be written again. All ranks.

        What the Trainer would write in place would show through the links of a snapshot that waits for
        upload; and what a killed save left there would look as if it belonged to the new one. A folder that
        is new to this run stays: a subclass of the Trainer has begun to write this very checkpoint.
        """
        if self.claim is None or self.disabled:
            return
        self.pacer.mark()
        if self.leads_node and folder.name in self._standing:
            files.remove_tree(folder)
            self._standing.discard(folder.name)
        if self.ranks.world_size > 1:
            try:
                self.ranks.gather(None, tag=f"clear/{self._seq}")
            except RanksError as error:
                self.events.warn(EventKind.TROUBLE, f"{error}: {folder.name} may be left out")

    def save(self, save: Save) -> None:
        """Snapshot a checkpoint folder and queue it; never raises for the storage's or the disk's sake. All ranks.

        Raises FencedError, on all ranks, where one has learnt that another process took the vault.
        """
        if self.claim is None or self.disabled:
            return
        begin, self.saved_at = time.perf_counter(), time.time()
        self._flush_failed = False
        self._standing.add(save.folder.name)
        saving.save(self, save, self.next_seq())
        self.stall_seconds = time.perf_counter() - begin
        self.pacer.saved()

    def begin(self, step: int, within: CodeType | None = None) -> None:
        """Say that training begins, behind ``step``, and runs for as long as ``within`` does. All ranks."""
        self.step = step
        self._under_way = True
        self.watch.open(within)
        self.pacer.begin()

    def at_step(self, step: int) -> StepDecision:
        """Return whether to save and whether to stop, at the end of ``step``. All ranks, after each step.

        What one rank knows all act on at the end of the same step, a few steps later. Raises FencedError, on all
        ranks, if another process took the vault and the settings say to stop.
        """
        self.step = step
        if self.claim is None or self.disabled:
            return StepDecision()
        self.pacer.mark()
        verdict = heed(self, step)
        if verdict is None:
            return StepDecision(save=self.pacer.due(step))
        return verdict

    def stop_if_fenced(self, reason: str | None) -> None:
        """Stop as the settings say, where there is a reason. Raises FencedError."""
        if reason is None or self.disabled:
            return
        self.disabled = True
        if self.settings.on_fenced == "stop":
            raise FencedError(reason)
        self.events.warn(EventKind.FENCED, "training goes on without a vault: on_fenced is 'continue'")

    def metrics(self) -> dict[str, float]:
        """Return figures for the Trainer's ``report_to``; seconds, bytes and steps."""
        uploader = self._uploader
        if uploader is None or self.disabled:
            return {}
        seconds, steps = uploader.exposure_figures()
        return {
            "vault/stall_seconds": self.stall_seconds,
            "vault/upload_seconds": uploader.figures.upload_seconds,
            "vault/uploaded_bytes": float(uploader.figures.uploaded_bytes),
            "vault/commits": float(uploader.figures.commits),
            "vault/exposure_seconds": seconds,
            "vault/exposure_steps": float(steps),
        }

    # End -----------------------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Wait for uploads, with a progress bar and a time-out; return whether all is committed. All ranks.

        The one place where training waits for storage. Raises FencedError as ``at_step`` does.
        """
        if self.claim is None or self.disabled:
            return False
        self._under_way = False
        uploader = self._uploader
        timeout = self._bound(self.settings.flush_timeout)
        done = uploader is None or self._wait(uploader)

        def sum_up(said: list[tuple[RankStatus, bool]]) -> tuple[SaveSummary, bool]:
            return saving.news_from(self, [word for word, _ in said]), said[0][1]

        try:
            news, done = self.ranks.decide(
                (saving.word_of(self), done), sum_up, timeout=self._bound(timeout + 60)
            )
        except RanksError as error:
            self.events.warn(EventKind.TROUBLE, str(error))
        else:
            saving.apply_summary(self, news)
            if uploader is not None:
                uploader.take_news()
            self.stop_if_fenced(news.fenced)
        self.apply_local_retention()
        if self.leads_node:
            clear_trash(self.output_dir)
        self._flush_failed = not done
        if not done and uploader is not None:
            self.events.warn(
                EventKind.TROUBLE,
                f"uploads aren't done after {timeout:.0f} s ({self._bound_by()}); {uploader.exposure()}; "
                f"what waits stays in {self.output_dir / LOCAL}, and the next start on this disk goes on from it",
            )
        return done and not self.disabled

    def finish(self, step: int, metrics: dict[str, float]) -> None:
        """Append the entry that says that the run is done at ``step``; storage trouble is only reported."""
        if self.disabled or self._writer is None:
            return
        try:
            self._writer.append("finish", lambda state, _: state.done(step, metrics), {"step": step})
            self.events.info(EventKind.FINISH, f"run finished at step {step}", step=step)
        except FencedError as error:
            self.stop_if_fenced(str(error))
        except StoreError as error:
            self.events.warn(EventKind.TROUBLE, f"the end of the run can't be noted in the vault: {error}")

    def close(self) -> None:
        """Wait for what is under way, unless ``flush`` just did so in vain, then stop; safe to call twice.

        Not for long for other nodes: where training failed, theirs may be gone, and the launcher waits for us.
        """
        with self._lock:
            uploader, self._uploader = self._uploader, None
        if self._under_way:  # it has failed: the others may be waiting for us in a save, and can't know
            self._under_way = False
            self.ranks.leave()
        atexit.unregister(self.close)
        if uploader is not None:
            if not self._flush_failed and not self.watch.hurried:
                self._wait(uploader, _FAREWELL)
            uploader.stop(self._last_wait())
        self.watch.close(leaving=self.ending is not None)

    def _wait(self, uploader: Uploader, for_others: float = math.inf) -> bool:
        timeout = self._bound(self.settings.flush_timeout)
        return wait_for_uploads(uploader, timeout, shown=self.progress, for_others=for_others)

    def _bound(self, timeout: float) -> float:
        return self.ending.bound(timeout) if self.ending is not None else timeout

    def _last_wait(self) -> float | None:
        """Return how long the end may wait for the upload thread to give up; None: as usual."""
        if self.watch.hurried:
            return 0.0
        late = self.ending is not None and self.ending.bound(math.inf) == 0
        return MARGIN / 2 if late else None

    def _bound_by(self) -> str:
        return "flush_timeout" if self._bound(math.inf) == math.inf else "the process is about to be ended"

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
        clear_superseded(self.output_dir, self.snapshots, commit.step)

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
            tidy_local(self.output_dir, state, policy, set())
        except OSError as error:
            self.events.warn_once(
                "local",
                EventKind.TROUBLE,
                f"old checkpoints can't be taken out of {self.output_dir}: {error}",
            )
