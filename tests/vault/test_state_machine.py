"""A state machine of save, upload, crash, claim, commit, prune, pin, finish, adopt and resume against a plain model.

Several processes on two hosts work on one vault in a store of the real client, each through a store of its own
that can die at any operation, lose an answer, hold a request back until much later, or let somebody else in
between two operations. After each step the whole log is followed by ``VaultModel``, and every live commit is read.

What `pytest` and `pytest -m slow` try is the same on every machine, so that a change is refused for its own sake only.
`VAULTLAYER_TEST_SEED=new pytest -m slow tests/vault/test_state_machine.py` tries others each time; what it finds is
printed as a call of ``reproduce_failure``, and is to be kept as a test below.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.kit.any_files import AnyFiles
from tests.vault.processes import Died, Draft, Mishap, Process, ProcessStore
from tests.vault.tools import Run
from tests.vault.world import World
from vaultlayer_hf.errors import (
    AlreadyExistsError,
    FencedError,
    StoreError,
    StoreUnavailableError,
    VaultLayerError,
    VaultUnreachableError,
)
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.vault import snapshot as snapshot_module
from vaultlayer_hf.vault.keys import folder_key
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.retention.prune import clean_orphans, delete_folder, retire
from vaultlayer_hf.vault.snapshot import seal_snapshot, take_snapshot
from vaultlayer_hf.vault.upload.sending import Transfer, commit, send, write_part

MOST_ALIVE = 3
HOSTS = st.sampled_from(["here", "there"])
MISHAPS = st.builds(  # where most steps go wrong, nothing is ever saved
    Mishap,
    kind=st.sampled_from(
        ["none"] * 8 + ["die"] * 3 + ["intrude"] * 2 + ["pin", "lost", "refused", "held", "echo"]
    ),
    countdown=st.integers(1, 35),
    moment=st.sampled_from(["before", "after"]),
    host=HOSTS,
)
PICKS = st.sampled_from([0, 0, 0, 0, 1, 2])  # 0: the youngest, which isn't fenced


class VaultMachine(RuleBasedStateMachine):
    """See the module's docstring. Few rules with many variants: all of them stay in play in every sequence."""

    folder = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(folder=self.folder)
        self._undo = pytest.MonkeyPatch()
        self._undo.setattr(snapshot_module, "COPY_BELOW", 64)  # the weights, of 100 bytes, are linked
        self._undo.setattr(threading, "excepthook", self._thread_failed)
        self._undo.setattr(logging.getLogger("vaultlayer_hf"), "level", logging.CRITICAL)

    def _thread_failed(self, failure: Any) -> None:
        if not issubclass(failure.exc_type, Died):
            self.world.problem = failure.exc_value

    def teardown(self) -> None:
        self.world.close()
        self._undo.undo()

    # Steps ---------------------------------------------------------------------------------------------

    @initialize(host=HOSTS)
    def begin(self, host: str) -> None:
        """Begin with a process that has saved, so that there is something to lose."""
        self._start(host, Mishap())
        self._save(self.world.alive[0], False, Mishap())

    @rule(host=HOSTS, mishap=MISHAPS, at=st.sampled_from([None, None, None, 0, 1, 2]))
    def start(self, host: str, mishap: Mishap, at: int | None) -> None:
        """A process starts, whoever else is alive: it claims, adopts or restores; it may be asked for a step."""
        if len(self.world.alive) < MOST_ALIVE:
            self._start(host, mishap, at)

    @rule(pick=PICKS, same_step=st.booleans(), mishap=MISHAPS)
    def save(self, pick: int, same_step: bool, mishap: Mishap) -> None:
        """A process saves, and its own background thread carries it."""
        process = self._pick(pick)
        if process is not None:
            self._save(process, same_step, mishap)

    @rule(pick=PICKS, number=st.integers(0, 2), action=st.sampled_from("ffsccca"), mishap=MISHAPS)
    def by_hand(self, pick: int, number: int, action: str, mishap: Mishap) -> None:
        """A process freezes a save, or sends one file of it, commits it, or abandons it."""
        process = self._pick(pick)
        if process is None:
            return
        if action == "f" or not process.drafts:
            self._freeze(process, number == 0)
        elif action == "s":
            self._send_one(process, process.drafts[number % len(process.drafts)], mishap)
        elif action == "c":
            self._commit(process, process.drafts.pop(number % len(process.drafts)), mishap)
        else:
            self._abandon(process, process.drafts.pop(number % len(process.drafts)), mishap)

    @rule(pick=PICKS, which=st.integers(0, 3), action=st.sampled_from("ppcfkk"), mishap=MISHAPS)
    def tidy(self, pick: int, which: int, action: str, mishap: Mishap) -> None:
        """A process retires a checkpoint, deletes orphans, says that its run is done, or is killed."""
        process = self._pick(pick)
        if process is None:
            return
        if action == "p":
            self._prune(process, which, mishap)
        elif action == "c":
            self.world.clock.time += (0, 0, 1, 25)[which] * 3600
            with self.world.acts(process):
                gone = clean_orphans(process.store, process.writer)
                self.world.notes.append(f"orphans: {len(gone)}")
        elif action == "f":
            self._finish(process)
        else:
            self.world.bury(process)

    @rule(which=st.integers(0, 3), action=st.sampled_from("wwrrdpa"))
    def elsewhere(self, which: int, action: str) -> None:
        """Time passes, a checkpoint rots, is pinned, let go, archived or taken back, or a request comes that hung."""
        world = self.world
        if action == "d" and world.held:
            key, data, process = world.held.pop(which % len(world.held))
            with world.acts(process):
                try:
                    world.clock.create(key, data)
                    world.notes.append("a late create won")
                except AlreadyExistsError:
                    world.notes.append("a late create lost")
                world.observe()
        elif action == "p":
            world.pin(which)
        elif action == "a":
            world.archive()
        elif action == "r" and len(world.model.live) > 1:
            world.rot(list(world.model.live.values())[-1 - which % len(world.model.live)])
        else:
            world.clock.time += (1, 23, 25, 25)[which] * 3600

    # What must hold ------------------------------------------------------------------------------------

    @invariant()
    def all_holds(self) -> None:
        """All that ``World`` checks."""
        world = self.world
        world.check_threads()
        world.check_log()
        world.check_content()
        world.check_acknowledged()
        world.check_newest()
        while world.notes:
            event(world.notes.pop())

    # How -----------------------------------------------------------------------------------------------

    def _pick(self, pick: int) -> Process | None:
        """Return a process that is alive, a new one where none is; None where nothing is left to start from.

        No rule has a precondition: whether a process has died can hang on its upload thread's pace, and Hypothesis
        takes a rule that is there in one run and not in the next for a fault of the test.
        """
        if not self.world.alive:
            self._start("here", Mishap())
        alive = self.world.alive
        return alive[-1 - pick % len(alive)] if alive else None

    def _intrudes(self, mishap: Mishap) -> bool:
        """Whether another process may start in the middle of a step, so that its end can't be foretold."""
        return mishap.kind == "intrude"

    def _intrude(self, mishap: Mishap) -> None:
        """Start a process, or pin, in the middle of another's operation, on whichever thread that is."""
        try:
            self.world.observe()  # what the other has written so far
            if mishap.kind == "pin":
                self.world.pin(0)
            else:
                self._start(mishap.host, Mishap())
        except Exception as error:
            self.world.problem = error  # the library's thread would take it for trouble of its store
            raise

    def _end_of_step(self, process: Process) -> None:
        process.store.disarm()
        self.world.held += [(key, data, process) for key, data in process.store.held]
        process.store.held = []
        with self.world.acts(process):
            self.world.observe()
        if process.store.dead:
            self.world.bury(process)

    def _start(self, host: str, mishap: Mishap, at: int | None = None) -> None:
        world = self.world
        world.count += 1
        live = list(world.model.live.values())
        asked = live[at % len(live)].step if at is not None and live else None
        store = ProcessStore(world.clock, lambda name, key: world.guard(process, name, key))
        run = Run(store, world.root / host, keep_last=2, at_step=asked)
        process = Process(world.count, host, run, store, asked)
        store.arm(mishap, self._intrude)
        world.alive.append(process)
        path, failure = None, None
        with world.acts(process):
            try:
                path = run.resume()
                run.wait()
            except VaultLayerError as error:
                failure = error
        self._end_of_step(process)
        for item in run.events("commit"):
            world.acknowledge(item.fields["number"], process)
        if store.dead or process.token is None or isinstance(failure, VaultUnreachableError):
            assert store.dead or mishap.kind != "none"
            world.notes.append(f"start: {'died' if store.dead else mishap.kind}")
        elif self._intrudes(mishap) and failure is not None and world.model.fenced(process.token):
            world.notes.append("start: a newer one took away what was to be restored")
        else:
            world.notes.append(f"start: {world.check_start(process, path, failure)}")
        if failure is not None:
            world.bury(process)

    def _save(self, process: Process, same_step: bool, mishap: Mishap) -> None:
        world, session = self.world, process.run.session
        uploader = session.uploader
        if uploader is None or uploader.fenced is not None or session.disabled:
            return
        if mishap.kind in ("lost", "refused", "held"):  # the thread would try again, after a wait
            mishap = Mishap()
        fenced = world.model.fenced(process.claim)
        folder, content = world.write(process, same_step)
        world.contents[process.claim, session.coming_seq] = content
        told = len(process.run.told)
        process.store.arm(mishap, self._intrude)
        with world.acts(process):
            process.run.training.save(Save(folder, process.step, AnyFiles()))
            process.run.wait()
        self._end_of_step(process)
        commits = [item for item in process.run.told[told:] if item.kind == "commit"]
        for item in commits:
            world.acknowledge(item.fields["number"], process)
        if process.store.dead:
            world.notes.append("save: died")
        elif not self._intrudes(mishap):
            assert (len(commits), uploader.fenced is not None) == ((0, True) if fenced else (1, False))
            world.notes.append(f"save: {'fenced' if fenced else 'done'}")

    def _freeze(self, process: Process, same_step: bool) -> None:
        world, session = self.world, process.run.session
        if len(process.drafts) > 2:
            return
        folder, content = world.write(process, same_step)
        seq, token = session.next_seq(), process.claim
        world.contents[token, seq] = content
        manifest = Manifest(
            step=process.step, token=token, seq=seq, files=(), resumed_from=session.resumed_from
        )
        snapshot = seal_snapshot(take_snapshot(folder, session.snapshots, seq, manifest))
        world.sealed.add(snapshot.path)
        name = session.name_folder(snapshot.name, seq)
        process.drafts.append(Draft(snapshot, Transfer(folder_key(token, name))))

    def _send_one(self, process: Process, draft: Draft, mishap: Mishap) -> None:
        paths = [entry.path for entry in draft.snapshot.manifest.files]
        todo = frozenset([path for path in paths if path not in draft.transfer.done][:1])
        process.store.arm(mishap, self._intrude)
        with self.world.acts(process):
            try:
                send(
                    process.store, draft.snapshot, draft.transfer, known=self.world.known(process), only=todo
                )
            except (OSError, StoreError):
                # A newer start on this disk has taken the snapshot away.
                assert self.world.model.fenced(process.claim) or self._intrudes(mishap)
                process.drafts.remove(draft)
        self._end_of_step(process)

    def _commit(self, process: Process, draft: Draft, mishap: Mishap) -> None:
        world, store = self.world, process.store
        snapshot, transfer = draft.snapshot, draft.transfer
        fenced = world.model.fenced(process.claim)
        done, outcome = None, "died"
        store.arm(mishap, self._intrude)
        with world.acts(process):
            try:
                send(store, snapshot, transfer, known=world.known(process))
                write_part(store, snapshot, transfer, 0)
                origin = process.run.session.resumed_from
                done = commit(store, process.writer, snapshot.manifest, transfer, resumed_from=origin)
                outcome = "done"
            except FencedError:
                outcome = "fenced"
            except StoreUnavailableError:
                outcome = "unknown"
            except (OSError, StoreError):
                outcome = "the snapshot is gone"
        self._end_of_step(process)
        world.notes.append(f"commit: {outcome}")
        if done is not None:
            world.acknowledge(done.number, process)
            world.drop(snapshot)
        elif outcome == "unknown" and mishap.countdown % 2:
            world.drop(snapshot)
        if outcome == "done" and not self._intrudes(mishap):
            assert not fenced
        elif outcome in ("fenced", "the snapshot is gone"):
            assert world.model.fenced(process.claim)

    def _abandon(self, process: Process, draft: Draft, mishap: Mishap) -> None:
        process.store.arm(mishap, self._intrude)
        with self.world.acts(process):
            delete_folder(process.store, draft.transfer.folder)
            self.world.drop(draft.snapshot)
        self._end_of_step(process)

    def _prune(self, process: Process, which: int, mishap: Mishap) -> None:
        state = process.writer.state
        free = [item for item in state.commits if item != state.newest and item.number != process.origin]
        # Of a pinned one nothing is to be done, nor noticed.
        choice = [item for item in free if not item.pinned]
        if not choice:
            return
        fenced, outcome = self.world.model.fenced(process.claim), "died"
        process.store.arm(mishap, self._intrude)
        with self.world.acts(process):
            try:
                retire(process.store, process.writer, [choice[which % len(choice)]], {})
                outcome = "done"
            except FencedError:
                outcome = "fenced"
            except StoreUnavailableError:
                outcome = "unknown"
        self._end_of_step(process)
        self.world.notes.append(f"prune: {outcome}")
        assert outcome != "fenced" or self.world.model.fenced(process.claim)
        assert outcome != "done" or not fenced

    def _finish(self, process: Process) -> None:
        fenced, session = self.world.model.fenced(process.claim), process.run.session
        if session.disabled:
            return
        with self.world.acts(process):
            try:
                process.run.training.finish(process.step, {"loss": 1.0})
                assert not fenced
            except FencedError:
                assert fenced
        self._end_of_step(process)


class FolderMachine(VaultMachine):
    """The same with the vault in a folder."""

    folder = True


COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much],
}


@pytest.mark.parametrize(("machine", "examples"), [(VaultMachine, 50), (FolderMachine, 30)])
def test_the_protocol_against_its_model(machine: type[VaultMachine], examples: int) -> None:
    """Whatever the order of saves, crashes, claims, late requests and prunes, the vault is what the model says."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            derandomize=True,
            phases=(Phase.generate,),
            **COMMON,
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("machine", "examples"), [(VaultMachine, 400), (FolderMachine, 150)])
def test_the_protocol_against_its_model_at_length(machine: type[VaultMachine], examples: int) -> None:
    """The same with many more and longer sequences; new ones in each run where VAULTLAYER_TEST_SEED says ``new``."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            derandomize=os.environ.get("VAULTLAYER_TEST_SEED") != "new",
            phases=(Phase.generate, Phase.shrink),
            **COMMON,
        ),
    )


def test_a_commit_between_the_look_and_the_claim_counts() -> None:
    """What another writer commits after a start has looked, and before it has claimed, is gone on from."""
    machine = VaultMachine()
    calm = Mishap("none", 1, "before", "here")
    try:
        machine.begin(host="here")
        machine.start(at=None, host="there", mishap=calm)
        machine.save(mishap=Mishap("die", 1, "before", "here"), pick=0, same_step=False)
        machine.start(at=None, host="here", mishap=Mishap("intrude", 2, "after", "there"))
    finally:
        machine.teardown()


def test_an_older_save_committed_last_leaves_the_one_between_behind() -> None:
    """Where a writer has committed its second save behind its fourth, its third isn't adopted: the fourth is newer."""
    machine = VaultMachine()
    calm = Mishap("none", 1, "before", "here")
    try:
        machine.begin(host="here")
        machine.by_hand(action="f", mishap=calm, number=0, pick=0)
        machine.by_hand(action="f", mishap=calm, number=0, pick=0)
        machine.save(mishap=calm, pick=0, same_step=False)
        machine.by_hand(action="c", mishap=calm, number=0, pick=0)
        machine.start(at=None, host="here", mishap=calm)
    finally:
        machine.teardown()
