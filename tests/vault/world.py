"""The world of the state machine: a vault, two disks, the processes on them, the model, and what must hold.

After each step ``observe`` follows the log with the model; ``guard`` looks at every change before a process makes
it; the ``check_*`` methods are the invariants.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.vault.processes import Died, Process
from tests.vault.tools import ClockStore, content_of, memory_store, objects
from vaultlayer_hf.errors import NoSuchCheckpointError, NoUsableCheckpointError
from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.testing.model import Saved, VaultModel
from vaultlayer_hf.vault.keys import LOG, entry_key
from vaultlayer_hf.vault.log.archive import ARCHIVE, UNDO
from vaultlayer_hf.vault.log.entry import Commit, Entry, decode_entry
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.reader.archive import make_archive, undo_archive
from vaultlayer_hf.vault.reader.pin import pin
from vaultlayer_hf.vault.retention.prune import ORPHAN_GRACE
from vaultlayer_hf.vault.snapshot import LOCAL, Snapshot


class World:
    """What there is, and what is known of it from outside."""

    def __init__(self, *, folder: bool = False) -> None:
        shared = "/dev/shm"  # fsync costs nothing there
        self.root = Path(tempfile.mkdtemp(dir=shared if Path(shared).is_dir() else None))
        self.clock = ClockStore(FolderStore(self.root / "vault") if folder else memory_store())
        self.vault = self.clock.inner
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
        self.count = 0
        self._acting: list[Process] = []

    def close(self) -> None:
        """End all processes and remove the disks."""
        for process in list(self.alive):
            self.bury(process)
        shutil.rmtree(self.root, ignore_errors=True)

    # Processes -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def acts(self, process: Process) -> Iterator[None]:
        """Say whose operations these are, and take the death of the process for what it is."""
        self._acting.append(process)
        try:
            yield
        except Died:
            pass
        finally:
            self._acting.remove(process)

    def bury(self, process: Process) -> None:
        """End a process; nothing that it still does reaches the vault."""
        process.store.dead = True
        if process in self.alive:
            self.alive.remove(process)
        with self.acts(process):
            process.run.close()

    def write(self, process: Process, same_step: bool) -> tuple[Path, dict[str, bytes]]:
        """Write a checkpoint folder as the Trainer does; its weights are this process's and nobody else's."""
        process.step += 0 if same_step and process.step else 10
        folder = process.run.session.output_dir / f"checkpoint-{process.step}"
        process.run.training.before_save(folder)
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

    def known(self, process: Process) -> Commit | None:
        """The commit whose files needn't be sent again: the newest that this process itself has seen sound."""
        sound = [
            item
            for item in process.writer.state.commits
            if item.number not in self.damaged and item.token == process.token
        ]
        return sound[-1] if sound else None

    def drop(self, snapshot: Snapshot) -> None:
        """Remove a snapshot from the disk."""
        self.sealed.discard(snapshot.path)
        snapshot.remove()

    def rot(self, saved: Saved) -> None:
        """Flip a bit of a committed checkpoint's weights, and tell nobody."""
        if saved.number not in self.damaged:
            key = f"{saved.folder}/model.safetensors"
            data = bytearray(self.vault.read(key, limit=1000))
            data[7] ^= 4
            self.vault.write(key, bytes(data))
            self.damaged.add(saved.number)

    def pin(self, which: int) -> None:
        """Pin a live checkpoint, or let it go, as a person does from anywhere; it can't fail."""
        found = Log(self.vault).last()[1]
        if found is None or not found.state.commits:
            return
        commit = found.state.commits[which % len(found.state.commits)]
        pin(self.clock, commit, not commit.pinned)
        self.notes.append("let go" if commit.pinned else "pinned")
        self.observe()

    def archive(self) -> None:
        """Start over, or take the newest archive back where nothing was committed since, as a person does."""
        if self.model.newest is not None:
            make_archive(self.clock)
            self.notes.append("archived")
        elif self.model.archives:
            undo_archive(self.clock)
            self.notes.append("taken back")
        self.observe()

    # Looking on ----------------------------------------------------------------------------------------

    def observe(self) -> None:
        """Follow what the log says since the last look."""
        number = self.model.last + 1
        found = objects(self.vault, LOG)
        while (data := found.get(entry_key(number))) is not None:
            entry: Entry = decode_entry(data, number)
            person = ARCHIVE in entry.detail or UNDO in entry.detail
            if entry.kind == "claim" and not person:
                process = self._acting[-1]
                assert process.token is None, "a process claims once"
                process.token = number
                self.by_token[number] = process
            if entry.kind == "retire":
                self.retired_folders |= set(entry.state.retiring)
            writer = self.by_token.get(entry.token)  # none: a person's archive, or a pin behind it
            self.model.follow(entry, writer.origin if writer is not None else None)
            self.entries[number] = data
            number += 1

    def acknowledge(self, number: int, process: Process) -> None:
        """Take note of a commit of which a process was told that it counts."""
        assert self.model.history[number].token == process.token
        self.acknowledged.add(number)

    def guard(self, process: Process, name: str, key: str) -> None:
        """Look at an operation before a process makes it: nothing under another token, nothing that is live."""
        top, _, rest = key.partition("/")
        own = process.writer.token if process.writer is not None else None
        if name in ("write", "upload", "copy"):
            assert key == "hint.json" or top == "probe" or (top == "data" and rest.startswith(f"{own}/")), key
        elif name == "create":
            assert top in ("log", "probe"), key
            if top == "log" and own is None:
                self.observe()
                if process.token is None:
                    self._expect(process)
        elif name == "delete" and top != "probe":
            self._guard_deletion(process, own, key)

    def _guard_deletion(self, process: Process, own: int | None, key: str) -> None:
        top, token, name = key.split("/")[:3]
        assert top == "data", key
        folder = f"{top}/{token}/{name}"
        last = Log(self.vault).last()[1]
        assert last is not None
        assert folder not in {item.folder for item in last.state.commits}, f"{key} is live"
        late = [data for entry, data, _ in self.held if not self.vault.exists(entry)]
        assert not any(f'"{folder}"'.encode() in data for data in late), f"{key} may be committed"
        ours = token == str(own) and folder not in {item.transfer.folder for item in process.drafts}
        retired = folder in self.retired_folders | set(last.state.retiring)
        changed = max((item.modified for item in self.clock.list(f"{folder}/")), default=0.0)
        old = own is not None and int(token) < own and self.clock.time - changed > ORPHAN_GRACE
        assert ours or retired or old, f"{key} is another's"

    def _expect(self, process: Process) -> None:
        """Take note of what a process must go on from that is about to claim the vault."""
        process.snapshot, process.restored, process.origin = None, None, None
        process.before = self.model.newest
        last = Log(self.vault).last()[1]
        if last is None:
            return
        own, token = self.model.last_of_dead_writer(), self.model.token
        while process.asked is None and process.snapshot is None:
            folder = self.root / process.host / LOCAL / last.state.vault_id / str(token)
            # The furthest save that it has committed, which needn't be its last commit: by hand, an older one may be
            # committed behind a newer one. What lies between the two is older than what counts already.
            best = max((saved.seq for saved in self.model.live.values() if saved.token == token), default=0)
            for path in [*folder.glob("*/written.json"), *folder.glob("*/manifest.json")]:
                body = json.loads(path.read_bytes())
                body = body.get("manifest", body)
                if body["token"] == token and body["seq"] > best:
                    best = body["seq"]
                    process.snapshot = content_of(path.parent / "files")
                    assert process.snapshot == self.contents[token, best]
            if own or process.snapshot is not None:
                break
            if (folder / "adopting").is_file():  # it died while it was about to go on from that one's
                token = int((folder / "adopting").read_text())
            else:  # right behind its claim, perhaps: this start, which is about to claim, has found that out
                note = folder.parent / "claiming"
                found = json.loads(note.read_bytes())["writers"] if note.is_file() else [0]
                earlier = [writer for writer in found if found[0] == self.model.token and writer < token]
                if not earlier:
                    break
                token = max(earlier)
            newest = self.model.newest
            own = newest if newest is not None and newest.token == token else None
        for path in self.sealed:
            assert path.parent.name != str(self.model.token) or (path / "manifest.json").is_file()
        if process.snapshot is not None:
            process.origin = own.number if own else self.by_token[token].origin
            self.contents[self.model.last + 1, 1] = process.snapshot  # the token that its claim will get
            return
        line = self.model.line
        if process.asked is not None:
            newest_first = [saved for _, saved in sorted(self.model.live.items(), reverse=True)]
            line = [saved for saved in newest_first if saved.step == process.asked]
        process.restored = next((saved for saved in line if self._usable(saved, process.host)), None)
        process.origin = process.restored.number if process.restored else None

    def _usable(self, saved: Saved, host: str) -> bool:
        """Whether a checkpoint is sound in the vault, or what is damaged there lies on the host's disk."""
        local = self.root / host / f"checkpoint-{saved.step}" / "model.safetensors"
        content = self.contents[saved.token, saved.seq]["model.safetensors"]
        return saved.number not in self.damaged or (local.is_file() and local.read_bytes() == content)

    # What must hold ------------------------------------------------------------------------------------

    def check_start(self, process: Process, path: Path | None, failure: Exception | None) -> str:
        """Compare what a start went on from with what it must have been, as of its claim; return it in a word."""
        wanted = process.before is not None or process.asked is not None  # what is archived may be asked for
        if process.snapshot is None and process.restored is None and wanted:
            # Since it was asked for.
            gone = process.asked is not None and isinstance(failure, NoSuchCheckpointError)
            assert gone or isinstance(failure, NoUsableCheckpointError), failure
            return "none is usable"
        assert failure is None, failure
        assert process.run.session.resumed_from == process.origin
        if process.snapshot is not None:
            assert path is not None
            assert content_of(path) == process.snapshot
            assert process.run.events("adopt") != []
            process.step = int(path.name.split("-")[1])
            return "adopted"
        if process.restored is not None:
            assert path is not None
            assert content_of(path) == self.contents[process.restored.token, process.restored.seq]
            process.step = process.restored.step
            return "restored" if process.restored == process.before else "restored an older one"
        assert path is None
        return "fresh"

    def check_log(self) -> None:
        """Numbers are contiguous, entries never change, and each says what the model says."""
        found = objects(self.vault, LOG)
        assert sorted(found) == [entry_key(number) for number in range(1, len(found) + 1)]
        assert {entry_key(number): data for number, data in self.entries.items()} == found
        last = Log(self.vault).last()[1]
        assert last is None or self.model.difference(last.state) == ""

    def check_content(self) -> None:
        """Each live commit holds exactly what its process has saved, whatever others have done since."""
        for saved in self.model.live.values():
            prefix = f"{saved.folder}/"
            found = {key.removeprefix(prefix): data for key, data in objects(self.vault, prefix).items()}
            assert ".vault/manifest.json" in found
            content = {path: data for path, data in found.items() if not path.startswith(".vault/")}
            expected = dict(self.contents[saved.token, saved.seq])
            if saved.number in self.damaged:
                del content["model.safetensors"], expected["model.safetensors"]
            assert content == expected, saved

    def check_acknowledged(self) -> None:
        """An acknowledged commit is live, or an entry says that it was retired."""
        assert self.acknowledged <= set(self.model.live) | self.model.retired

    def check_newest(self) -> None:
        """While any commit is live and not archived, one is on the run's way: no start falls back to step 0."""
        own = [saved for saved in self.model.live.values() if not (saved.archived and saved.behind)]
        assert (self.model.newest is not None) == bool(own)

    def check_threads(self) -> None:
        """What went wrong on a background thread counts."""
        if self.problem is not None:
            raise self.problem
