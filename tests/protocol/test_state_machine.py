"""A state machine of save, upload, crash, claim, commit, prune, finish, adopt and resume against a plain model.

Several processes on two hosts work on one vault in a store of the real client, each through a store of its own
that can die at any operation, lose an answer, hold a request back until much later, or let somebody else in
between two operations. After each step the whole log is followed by ``VaultModel``, and every live commit is read.

The default run is the same on every machine. `pytest -m slow` tries many more, with a new seed each time; what
it finds is printed as a call of ``reproduce_failure``.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.protocol.tools import ClockStore, Run, content_of, memory_store, objects
from vaultlayer_hf import progress
from vaultlayer_hf.errors import (
    AlreadyExistsError,
    FencedError,
    NoUsableCheckpointError,
    StoreError,
    StoreUnavailableError,
    VaultLayerError,
    VaultUnreachableError,
)
from vaultlayer_hf.saving import Save
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.testing.model import Saved, VaultModel
from vaultlayer_hf.vault import snapshot as snapshot_module
from vaultlayer_hf.vault.entry import Entry, decode_entry
from vaultlayer_hf.vault.keys import LOG, entry_key, folder_key
from vaultlayer_hf.vault.log import Log
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.prune import ORPHAN_GRACE, clean_orphans, delete_folder, retire
from vaultlayer_hf.vault.snapshot import LOCAL, Snapshot, seal, take
from vaultlayer_hf.vault.upload import Transfer, commit, folder_name, send, write_part

HOSTS = ("here", "there")
MOMENTS = st.sampled_from(["before", "after"])
MOST_ALIVE = 3


def rarely(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw None, and now and then something else: where most steps go wrong, nothing is ever saved."""
    return st.sampled_from([False, False, False, True]).flatmap(lambda odd: strategy if odd else st.none())


class Died(BaseException):
    """What a killed process raises here: nothing catches it, and its store answers nothing any more."""


@dataclass
class Draft:
    """A save that is carried by hand, step by step."""

    snapshot: Snapshot
    transfer: Transfer


class ProcessStore(FaultStore):
    """The vault as one process sees it; every change is looked at by the machine before it is made."""

    def __init__(self, inner: Store, guard: Callable[[str, str], None]) -> None:
        super().__init__(inner, self._at)
        self.dead = False
        self.countdown: int | None = None
        self.moment = "before"
        self.action: Callable[[], None] = self.die
        self.trouble: str | None = None
        self.held: list[tuple[str, bytes]] = []
        self._guard = guard
        self._counting = threading.Lock()

    def die(self) -> None:
        """Kill the process."""
        self.dead = True
        raise Died

    def arm(
        self, countdown: int | None, moment: str = "before", action: Callable[[], None] | None = None
    ) -> None:
        """Let something happen before or after the operation that is ``countdown`` away; None: nothing."""
        self.countdown, self.moment, self.action = countdown, moment, action or self.die

    def create(self, key: str, data: bytes) -> None:
        if not key.startswith(LOG) or self.trouble is None:
            super().create(key, data)
            return
        trouble, self.trouble = self.trouble, None
        if trouble in ("lost", "echo"):
            super().create(key, data)
        if trouble == "echo":
            super().create(key, data)
        else:
            if trouble == "held":
                self.held.append((key, data))
            raise StoreUnavailableError("create", key, trouble)

    def _at(self, operation: Operation) -> Fault | None:
        if self.dead:
            raise Died
        self._guard(operation.name, operation.key)
        with self._counting:
            if self.countdown is None:
                return None
            self.countdown -= 1
            if self.countdown > 0:
                return None
            self.countdown = None
        act = self.action
        return Fault(before=lambda _: act()) if self.moment == "before" else Fault(after=lambda _: act())


@dataclass
class Process:
    """A process that trains on the vault.

    Attributes:
        token: its claim; None before.
        origin: number of the commit that it goes on from.
        step: of its last save.
        asked: the step that it was asked to go on from.
        before, restored, snapshot: the newest checkpoint before its claim, and what it must go on from.
        drafts: saves that are carried by hand.
    """

    number: int
    host: str
    run: Run
    store: ProcessStore
    token: int | None = None
    origin: int | None = None
    step: int = 0
    asked: int | None = None
    before: Saved | None = None
    restored: Saved | None = None
    snapshot: dict[str, bytes] | None = None
    drafts: list[Draft] = field(default_factory=list)

    @property
    def writer(self) -> Any:
        """Its claim."""
        return self.run.session._writer


class VaultMachine(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        shared = "/dev/shm"  # fsync costs nothing there
        self.root = Path(tempfile.mkdtemp(dir=shared if Path(shared).is_dir() else None))
        self.clock = ClockStore(memory_store())
        self.model = VaultModel()
        self.alive: list[Process] = []
        self.by_token: dict[int, Process] = {}
        self.contents: dict[tuple[int, int], dict[str, bytes]] = {}
        self.entries: dict[int, bytes] = {}
        self.damaged: set[int] = set()
        self.acknowledged: set[int] = set()
        self.retired_folders: set[str] = set()
        self.held: list[tuple[str, bytes, Process]] = []
        self.sealed: set[Path] = set()
        self.problem: BaseException | None = None
        self.notes: list[str] = []
        self.acting: list[Process] = []
        self.count = 0
        self._undo = pytest.MonkeyPatch()
        self._undo.setattr(snapshot_module, "COPY_BELOW", 64)  # the weights, of 100 bytes, are linked
        self._undo.setattr(threading, "excepthook", self._thread_failed)
        quiet = progress.tqdm
        self._undo.setattr(progress, "tqdm", lambda **options: quiet(**{**options, "disable": True}))
        self._undo.setattr(logging.getLogger("vaultlayer_hf"), "level", logging.CRITICAL)

    def _thread_failed(self, failure: Any) -> None:
        if not issubclass(failure.exc_type, Died):
            self.problem = failure.exc_value

    def teardown(self) -> None:
        for process in list(self.alive):
            self._bury(process)
        self._undo.undo()
        shutil.rmtree(self.root, ignore_errors=True)

    # What the processes do -----------------------------------------------------------------------------

    @initialize(host=st.sampled_from(HOSTS))
    def first(self, host: str) -> None:
        """Begin with a process, so that there is something to do."""
        self._start(host, None, "before")

    @precondition(lambda self: len(self.alive) < MOST_ALIVE)
    @rule(
        host=st.sampled_from(HOSTS),
        crash=rarely(st.integers(1, 45)),
        moment=MOMENTS,
        at=rarely(st.integers(0, 9)),
        trouble=rarely(st.sampled_from(["lost", "refused", "held", "echo"])),
        intruder=rarely(st.sampled_from(HOSTS)),
    )
    def start(
        self,
        host: str,
        crash: int | None,
        moment: str,
        at: int | None,
        trouble: str | None,
        intruder: str | None,
    ) -> None:
        """A process starts, whoever else is alive: it claims, adopts or restores, and may die on the way.

        It may ask for a step; others may start in the middle; its claim's answer may get lost.
        """
        self._start(host, crash, moment, at=at, trouble=trouble, intruder=intruder)

    @precondition(lambda self: self.alive)
    @rule(
        pick=st.integers(0, 9),
        same_step=st.booleans(),
        crash=rarely(st.integers(1, 25)),
        moment=MOMENTS,
        intruder=rarely(st.sampled_from(HOSTS)),
    )
    def save(self, pick: int, same_step: bool, crash: int | None, moment: str, intruder: str | None) -> None:
        """A process saves, and its own background thread carries it; it may die, or another start in the middle."""
        process = self._pick(pick)
        uploader = process.run.session.uploader
        if uploader is None or uploader.fenced is not None or process.run.session.disabled:
            return
        fenced = self.model.fenced(process.token or 0)
        folder, content = self._write(process, same_step)
        seq = process.run.session._seq + 1
        self.contents[process.token or 0, seq] = content
        told = len(process.run.told)
        intrudes = intruder is not None and crash is not None and len(self.alive) < MOST_ALIVE
        if intrudes:
            process.store.arm(crash, moment, lambda: self._intrude(str(intruder)))
        else:
            process.store.arm(crash, moment)
        with self._acts(process):
            process.run.session.save(Save(folder, process.step, lambda folder, paths: []))
            process.run.wait()
        process.store.arm(None)
        self._observe()
        kinds = [item.kind for item in process.run.told[told:]]
        for item in process.run.told[told:]:
            if item.kind == "commit":
                self._acknowledge(item.fields["number"], process, content)
        self.notes.append(
            f"save: {'died' if process.store.dead else 'fenced' if 'fenced' in kinds else 'done'}"
        )
        if process.store.dead:
            self._bury(process)
        elif not intrudes:
            assert ("commit" in kinds) == (not fenced), (kinds, fenced)
            assert ("fenced" in kinds) == fenced

    @precondition(lambda self: self.alive)
    @rule(pick=st.integers(0, 9), same_step=st.booleans())
    def freeze(self, pick: int, same_step: bool) -> None:
        """A process takes and seals a snapshot, and doesn't send it yet."""
        process = self._pick(pick)
        session = process.run.session
        if process.token is None or len(process.drafts) > 2:
            return
        folder, content = self._write(process, same_step)
        seq = session.next_seq()
        self.contents[process.token, seq] = content
        manifest = Manifest(
            step=process.step, token=process.token, seq=seq, files=(), resumed_from=session.resumed_from
        )
        snapshot = seal(take(folder, session.snapshots, seq, manifest))
        self.sealed.add(snapshot.path)
        name = folder_name(snapshot.name, seq, session._used_names)
        process.drafts.append(Draft(snapshot, Transfer(folder_key(process.token, name))))

    @precondition(lambda self: any(process.drafts for process in self.alive))
    @rule(
        pick=st.integers(0, 9),
        crash=rarely(st.integers(1, 4)),
        moment=MOMENTS,
    )
    def send_one(self, pick: int, crash: int | None, moment: str) -> None:
        """A process sends one file of a snapshot, or dies on the way."""
        process = self._pick(pick, drafts=True)
        draft = process.drafts[pick % len(process.drafts)]
        todo = [
            entry.path for entry in draft.snapshot.manifest.files if entry.path not in draft.transfer.done
        ]
        process.store.arm(crash, moment)
        try:
            with self._acts(process):
                send(
                    process.store,
                    draft.snapshot,
                    draft.transfer,
                    known=self._known(process),
                    only=frozenset(todo[:1]),
                )
        except (OSError, StoreError):
            assert self.model.fenced(
                process.token or 0
            )  # a newer start on this disk has taken the snapshot away
            process.drafts.remove(draft)
        process.store.arm(None)
        self._observe()
        if process.store.dead:
            self._bury(process)

    @precondition(lambda self: any(process.drafts for process in self.alive))
    @rule(
        pick=st.integers(0, 9),
        crash=rarely(st.integers(1, 12)),
        moment=MOMENTS,
        trouble=rarely(st.sampled_from(["lost", "refused", "held", "echo"])),
        intruder=rarely(st.sampled_from(HOSTS)),
        keep=st.booleans(),
    )
    def commit(
        self, pick: int, crash: int | None, moment: str, trouble: str | None, intruder: str | None, keep: bool
    ) -> None:
        """A process sends what is left of a snapshot and commits it; answers get lost, others come between."""
        process = self._pick(pick, drafts=True)
        draft = process.drafts.pop(pick % len(process.drafts))
        snapshot, transfer = draft.snapshot, draft.transfer
        fenced = self.model.fenced(process.token or 0)
        intrudes = intruder is not None and crash is not None and len(self.alive) < MOST_ALIVE
        if intrudes:
            process.store.arm(crash, moment, lambda: self._intrude(str(intruder)))
        else:
            process.store.arm(crash, moment)
        process.store.trouble = trouble
        done, outcome = None, "died"
        with self._acts(process):
            try:
                send(process.store, snapshot, transfer, known=self._known(process))
                write_part(process.store, snapshot, transfer, 0)
                done = commit(
                    process.store,
                    process.writer,
                    snapshot.manifest,
                    transfer,
                    resumed_from=process.run.session.resumed_from,
                )
                outcome = "done"
            except FencedError:
                outcome = "fenced"
            except StoreUnavailableError:
                outcome = "unknown"
            except (OSError, StoreError):
                assert self.model.fenced(process.token or 0) or intrudes  # a newer start on this disk
                outcome = "snapshot gone"
        process.store.arm(None)
        process.store.trouble = None
        self.held += [(key, data, process) for key, data in process.store.held]
        process.store.held = []
        self._observe()
        self.notes.append(f"commit: {outcome}, trouble {trouble}")
        if process.store.dead:
            self._bury(process)
            return
        if done is not None:
            self._acknowledge(done.number, process, self.contents[done.token, done.seq])
            self._drop(snapshot)
        elif outcome == "unknown" and not keep:
            self._drop(snapshot)
        if not intrudes and outcome in ("done", "fenced") and trouble in (None, "echo"):
            assert (outcome == "fenced") == fenced

    @precondition(lambda self: any(process.drafts for process in self.alive))
    @rule(
        pick=st.integers(0, 9),
        crash=rarely(st.integers(1, 6)),
        moment=MOMENTS,
    )
    def abandon(self, pick: int, crash: int | None, moment: str) -> None:
        """A process gives up a snapshot that it hasn't tried to commit, and deletes what it has sent."""
        process = self._pick(pick, drafts=True)
        draft = process.drafts.pop(pick % len(process.drafts))
        process.store.arm(crash, moment)
        with self._acts(process):
            delete_folder(process.store, draft.transfer.folder)
        process.store.arm(None)
        if process.store.dead:
            self._bury(process)
        else:
            self._drop(draft.snapshot)

    @precondition(lambda self: self.alive)
    @rule(
        pick=st.integers(0, 9),
        which=st.integers(0, 9),
        crash=rarely(st.integers(1, 12)),
        moment=MOMENTS,
    )
    def prune(self, pick: int, which: int, crash: int | None, moment: str) -> None:
        """A process retires a checkpoint that it may, or dies on the way, or learns that it is fenced."""
        process = self._pick(pick)
        if process.token is None:
            return
        state = process.writer.state
        choice = [item for item in state.commits if item != state.newest and item.number != process.origin]
        fenced = self.model.fenced(process.token)
        if not choice:
            return
        process.store.arm(crash, moment)
        with self._acts(process):
            try:
                retire(process.store, process.writer, [choice[which % len(choice)]], {})
                assert not fenced
            except FencedError:
                assert fenced
        process.store.arm(None)
        self._observe()
        if process.store.dead:
            self._bury(process)

    @precondition(lambda self: self.alive)
    @rule(pick=st.integers(0, 9))
    def clean(self, pick: int) -> None:
        """A process deletes orphans; the guard looks at each."""
        process = self._pick(pick)
        if process.token is not None:
            with self._acts(process):
                gone = clean_orphans(process.store, process.writer)
            self.notes.append(f"orphans: {len(gone)}")

    @precondition(lambda self: self.alive)
    @rule(pick=st.integers(0, 9))
    def finish(self, pick: int) -> None:
        """A process says that its run is done."""
        process = self._pick(pick)
        session = process.run.session
        if process.token is None or session.disabled:
            return
        fenced = self.model.fenced(process.token)
        with self._acts(process):
            try:
                session.finish(process.step, {"loss": 1.0})
                assert not fenced
            except FencedError:
                assert fenced
        self._observe()

    @precondition(lambda self: self.alive)
    @rule(pick=st.integers(0, 9))
    def kill(self, pick: int) -> None:
        """A process is gone from one moment to the next."""
        process = self._pick(pick)
        process.store.dead = True
        self._bury(process)

    # What else happens ---------------------------------------------------------------------------------

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 9))
    def deliver(self, pick: int) -> None:
        """A request that hung somewhere in the network arrives, much later."""
        key, data, process = self.held.pop(pick % len(self.held))
        with self._acts(process):
            try:
                self.clock.create(key, data)
                self.notes.append("a late create won")
            except AlreadyExistsError:
                self.notes.append("a late create lost")
            self._observe()

    @rule(hours=st.sampled_from([1, 23, 25]))
    def wait(self, hours: int) -> None:
        """Time passes in the store."""
        self.clock.time += hours * 3600

    @precondition(lambda self: len(self.model.live) > 1)
    @rule(which=st.integers(0, 9))
    def rot(self, which: int) -> None:
        """A bit of a committed checkpoint's weights flips, and nobody is told."""
        saved = list(self.model.live.values())[which % len(self.model.live)]
        if saved.number not in self.damaged:
            key = f"{saved.folder}/model.safetensors"
            data = bytearray(self.clock.inner.read(key, limit=1000))
            data[7] ^= 4
            self.clock.inner.write(key, bytes(data))
            self.damaged.add(saved.number)

    # What must hold ------------------------------------------------------------------------------------

    @invariant()
    def the_log_is_a_chain(self) -> None:
        """Numbers are contiguous, entries never change, and each says what the model says."""
        found = objects(self.clock.inner, LOG)
        assert sorted(found) == [entry_key(number) for number in range(1, len(found) + 1)]
        for number, data in self.entries.items():
            assert found[entry_key(number)] == data
        assert len(found) == self.model.last
        last = Log(self.clock.inner).last()[1]
        assert last is None or self.model.difference(last.state) == ""

    @invariant()
    def every_live_commit_is_whole(self) -> None:
        """Each holds exactly what its process has saved, whatever others have done since."""
        for saved in self.model.live.values():
            found = objects(self.clock.inner, f"{saved.folder}/")
            content = {
                key.removeprefix(f"{saved.folder}/"): data
                for key, data in found.items()
                if "/.vault/" not in key
            }
            if saved.number in self.damaged:
                content.pop("model.safetensors")
            expected = self.contents[saved.token, saved.seq]
            assert content == {path: expected[path] for path in content}
            assert len(content) == len(expected) - (saved.number in self.damaged)
            assert f"{saved.folder}/.vault/manifest.json" in found

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        """An acknowledged commit is live, or an entry says that it was retired."""
        assert self.acknowledged <= set(self.model.live) | self.model.retired

    @invariant()
    def there_is_something_to_resume_from(self) -> None:
        """While any commit is live, one of them is on the run's way: no start falls back to step 0."""
        assert (self.model.newest is not None) == bool(self.model.live)

    @invariant()
    def no_thread_has_failed(self) -> None:
        """What went wrong on a background thread counts."""
        while self.notes:
            event(self.notes.pop())
        if self.problem is not None:
            raise self.problem

    # Inside --------------------------------------------------------------------------------------------

    def _intrude(self, host: str) -> None:
        """Start a process in the middle of another's operation, on whichever thread that is."""
        try:
            self._start(host, None, "before")
        except Exception as error:
            self.problem = error  # the library's thread would take it for trouble of its store
            raise

    def _start(
        self,
        host: str,
        crash: int | None,
        moment: str,
        *,
        at: int | None = None,
        trouble: str | None = None,
        intruder: str | None = None,
    ) -> None:
        self._observe()
        self.count += 1
        number = self.count
        live = list(self.model.live.values())
        step = live[at % len(live)].step if at is not None and live else None
        store = ProcessStore(self.clock, lambda name, key: self._guard(process, name, key))
        uri = "/nonexistent/vault" if step is None else f"/nonexistent/vault@{step}"
        process = Process(number, host, Run(store, self.root / host, keep_last=2, uri=uri), store, asked=step)
        intrudes = intruder is not None and crash is not None and len(self.alive) < MOST_ALIVE - 1
        store.arm(crash, moment, (lambda: self._intrude(str(intruder))) if intrudes else None)
        store.trouble = trouble
        self.alive.append(process)
        path, failure = None, None
        with self._acts(process):
            try:
                path = process.run.resume()
                if process.run.session.uploader is not None:
                    process.run.wait()
            except VaultLayerError as error:
                failure = error
        store.arm(None)
        store.trouble = None
        self.held += [(key, data, process) for key, data in store.held]
        with self._acts(process):
            self._observe()
        for item in process.run.events("commit"):
            self._acknowledge(item.fields["number"], process, self.contents[process.token or 0, 1])
        if store.dead or process.token is None or isinstance(failure, VaultUnreachableError):
            assert store.dead or (failure is not None and (trouble is not None or intrudes))
            self.notes.append("start: died" if store.dead else f"start: claim {trouble}")
            self._bury(process)
            return
        assert [entry.kind for entry in self.entries_of(process)].count("claim") == 1
        try:
            self._check_start(process, path, failure)
        except AssertionError:
            if not intrudes or failure is None or not self.model.fenced(process.token):
                raise
            self.notes.append("start: a newer start took away what was to be restored")
        if failure is not None:
            self._bury(process)

    def _check_start(self, process: Process, path: Path | None, failure: Exception | None) -> None:
        """Compare what a start went on from with what it must have been, as of its claim."""
        snapshot, restored, before = process.snapshot, process.restored, process.before
        session = process.run.session
        if snapshot is not None:
            self.notes.append("start: adopted")
            assert failure is None
            assert path is not None
            assert content_of(path) == snapshot
            assert process.run.events("adopt") != []
            process.step = int(path.name.split("-")[1])
        elif restored is not None:
            self.notes.append("start: restored" if restored == before else "start: an older one restored")
            assert failure is None
            assert path is not None
            assert content_of(path) == self.contents[restored.token, restored.seq]
            process.step = restored.step
        elif before is not None:
            self.notes.append("start: none is usable")
            assert isinstance(failure, NoUsableCheckpointError)
            return
        else:
            self.notes.append("start: fresh")
            assert (path, failure) == (None, None)
        assert session.resumed_from == process.origin

    def _expect(self, process: Process) -> None:
        """Take note of what a process must go on from that is about to claim the vault."""
        process.snapshot, process.restored, process.origin = None, None, None
        process.before = self.model.newest
        last = Log(self.clock.inner).last()[1]
        if last is None:
            return
        own = self.model.last_of_dead_writer()
        folder = self.root / process.host / LOCAL / last.state.vault_id / str(self.model.token)
        best = own.seq if own else 0
        for path in folder.glob("*/manifest.json") if process.asked is None else ():
            body = json.loads(path.read_bytes())
            # A hand-over that was cut short carries the next writer's token in the dead one's folder.
            if body["token"] == self.model.token and body["seq"] > best:
                best = body["seq"]
                process.snapshot = content_of(path.parent / "files")
                assert process.snapshot == self.contents[self.model.token, best]
        for path in self.sealed:
            assert path.parent != folder or (path / "manifest.json").is_file()
        if process.snapshot is not None:
            dead = self.by_token.get(self.model.token)
            process.origin = own.number if own is not None else dead.origin if dead is not None else None
            self.contents[self.model.last + 1, 1] = process.snapshot  # the token that its claim will get
            return
        line = self.model.line
        if process.asked is not None:
            newest_first = [saved for _, saved in sorted(self.model.live.items(), reverse=True)]
            line = [saved for saved in newest_first if saved.step == process.asked]
        process.restored = next((saved for saved in line if self._usable(saved, process.host)), None)
        process.origin = process.restored.number if process.restored else None

    def entries_of(self, process: Process) -> list[Entry]:
        """Return the entries of the log that a process has written."""
        found = [decode_entry(data, number) for number, data in self.entries.items()]
        return [entry for entry in found if self.by_token[entry.token] is process]

    def _usable(self, saved: Saved, host: str) -> bool:
        """Whether a checkpoint's content is sound in the vault, or what is damaged there lies on the host's disk."""
        local = self.root / host / f"checkpoint-{saved.step}" / "model.safetensors"
        content = self.contents[saved.token, saved.seq]["model.safetensors"]
        return saved.number not in self.damaged or (local.is_file() and local.read_bytes() == content)

    def _observe(self) -> None:
        """Follow what the log says since the last look."""
        number = self.model.last + 1
        found = objects(self.clock.inner, LOG)
        while (data := found.get(entry_key(number))) is not None:
            entry: Entry = decode_entry(data, number)
            if entry.kind == "claim":
                process = self.acting[-1] if self.acting else self.alive[-1]
                process.token = number
                self.by_token[number] = process
            writer = self.by_token[entry.token]
            if entry.kind == "retire":
                self.retired_folders |= set(entry.state.retiring)
            self.model.follow(entry, writer.origin)
            self.entries[number] = data
            number += 1

    def _guard(self, process: Process, name: str, key: str) -> None:
        """Look at a change before a process makes it: nothing under another token, nothing that is live."""
        parts = key.split("/")
        own = process.writer.token if process.writer is not None else None
        if name in ("write", "upload", "copy"):
            assert key == "hint.json" or parts[0] == "probe" or (parts[0], parts[1]) == ("data", str(own)), (
                key
            )
        elif name == "create":
            assert parts[0] in ("log", "probe"), key
            if parts[0] == "log" and own is None:
                self._observe()
                if process.token is None:
                    self._expect(process)
        elif name == "delete" and parts[0] != "probe":
            assert parts[0] == "data", key
            folder = "/".join(parts[:3])
            last = Log(self.clock.inner).last()[1]
            assert last is not None
            assert folder not in {item.folder for item in last.state.commits}, f"{key} is live"
            late = [data for entry, data, _ in self.held if not self.clock.inner.exists(entry)]
            assert not any(f'"{folder}"'.encode() in data for data in late), f"{key} may be committed"
            ours = parts[1] == str(own) and folder not in {item.transfer.folder for item in process.drafts}
            retired = folder in self.retired_folders | set(last.state.retiring)
            modified = [item.modified for item in self.clock.list(f"{folder}/")]
            old = (
                own is not None
                and int(parts[1]) < own
                and self.clock.time - max(modified, default=0) > ORPHAN_GRACE
            )
            assert ours or retired or old, f"{key} is another's"

    def _acts(self, process: Process) -> Any:
        return _Acting(self, process)

    def _pick(self, pick: int, *, drafts: bool = False) -> Process:
        choice = [process for process in self.alive if process.drafts or not drafts]
        return choice[pick % len(choice)]

    def _known(self, process: Process) -> Any:
        """The commit whose files needn't be sent again: the newest that this process itself has seen sound."""
        sound = [
            item
            for item in process.writer.state.commits
            if item.number not in self.damaged
            and (item.token == process.token or item.number == process.origin)
        ]
        return sound[-1] if sound else None

    def _write(self, process: Process, same_step: bool) -> tuple[Path, dict[str, bytes]]:
        """Write a checkpoint folder as the Trainer does; its weights are this process's and nobody else's."""
        process.step += 0 if same_step and process.step else 10
        folder = process.run.session.output_dir / f"checkpoint-{process.step}"
        process.run.session.before_save(folder)
        shutil.rmtree(folder, ignore_errors=True)
        self.count += 1
        content = {
            "config.json": b"{}",
            "model.safetensors": f"weights {self.count} of process {process.number}".encode().ljust(100),
            "sub/trainer_state.json": json.dumps({"global_step": process.step}).encode(),
        }
        for name, data in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder, content

    def _acknowledge(self, number: int, process: Process, content: dict[str, bytes]) -> None:
        saved = self.model.history[number]
        assert saved.token == process.token
        assert self.contents[saved.token, saved.seq] == content
        self.acknowledged.add(number)

    def _drop(self, snapshot: Snapshot) -> None:
        self.sealed.discard(snapshot.path)
        snapshot.remove()

    def _bury(self, process: Process) -> None:
        process.store.dead = True
        if process in self.alive:
            self.alive.remove(process)
        with self._acts(process):
            process.run.close()


class _Acting:
    """Says whose operations these are, and takes the death of the process for what it is."""

    def __init__(self, machine: VaultMachine, process: Process) -> None:
        self._machine, self._process = machine, process

    def __enter__(self) -> None:
        self._machine.acting.append(self._process)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        self._machine.acting.remove(self._process)
        return isinstance(error, Died)


COMMON = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much],
}


def test_the_protocol_against_its_model() -> None:
    """Whatever the order of saves, crashes, claims, late requests and prunes, the vault is what the model says."""
    run_state_machine_as_test(
        VaultMachine,
        settings=settings(max_examples=60, stateful_step_count=30, derandomize=True, **COMMON),  # type: ignore[arg-type]
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_protocol_against_its_model_at_length() -> None:
    """The same with many more and longer sequences, new ones in each run."""
    run_state_machine_as_test(
        VaultMachine,
        settings=settings(max_examples=1000, stateful_step_count=60, **COMMON),  # type: ignore[arg-type]
    )
