"""An Accelerator's own save_state and load_state, led through a vault: for scripts that call them already.

A folder that save_state has written is committed under the step that its name ends with, and remembers its name: a
later start finds it there again, and load_state loads it. Naming, rotation and registered objects stay accelerate's.
Links and restores lie in ``<project_dir>/.vaultlayer``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.base.versions import versions
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.loops.accelerator import Prepared
from vaultlayer_hf.loops.files import ABOUT, read_about, write_about
from vaultlayer_hf.session.save.rounds import Save
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.layouts import missing_shards
from vaultlayer_hf.vault.snapshot import LOCAL

OURS = ".vaultlayer"
_OWN_NAME = re.compile(r"checkpoint_(\d+)")


class Hooks:
    """Sits in place of an Accelerator's save_state, load_state and end_training.

    Args:
        accelerator: whose methods are replaced, on this object alone.
        training: on a vault that is claimed.
        state: of the accelerator.
        root: the folder that the script's checkpoint folders are named from.
        restored: what the vault has brought, or None.
        on_saved: called with the step of each save.
        on_end: called when the script calls end_training.
    """

    def __init__(
        self,
        accelerator: Any,
        training: Training,
        state: Prepared,
        root: Path,
        restored: Path | None,
        on_saved: Callable[[int], None],
        on_end: Callable[[], None],
    ) -> None:
        self._accelerator, self._training, self._state, self._root = accelerator, training, state, root
        self._session = training.session
        self._on_saved, self._on_end = on_saved, on_end
        self._save, self._load, self._end = (
            accelerator.save_state,
            accelerator.load_state,
            accelerator.end_training,
        )
        self.step = 0
        """Step of the newest checkpoint."""
        self._loaded = False
        self.folder = self._put_where_it_was(restored) if restored is not None else None
        """The newest checkpoint, restored where the script had it; None on an empty vault."""
        accelerator.save_state, accelerator.load_state = self.save_state, self.load_state
        accelerator.end_training = self.end_training

    def load_state(self, input_dir: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Load what the script names, where it is there; else the vault's newest, restored; the log says which."""
        named = Path(input_dir).expanduser() if input_dir is not None else None
        events = self._session.events
        if self.folder is None or (named is not None and named.is_dir()):
            if self.folder is not None and named is not None and named.resolve() != self.folder.resolve():
                events.info(
                    EventKind.NOTICE,
                    f"load_state({str(named)!r}) wins over {self.folder}, the newest of {self._session.address.uri}",
                )
        else:
            what = "no folder was named" if named is None else f"{named} isn't here"
            events.info(
                EventKind.NOTICE, f"load_state() loads {self.folder}, restored from the vault: {what}"
            )
            input_dir = str(self.folder)
        loaded = self._load(input_dir, *args, **kwargs)
        self._loaded = True
        return loaded

    def save_state(self, output_dir: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Save as the script asks for, then commit the folder in the background. Raises FencedError."""
        session = self._session
        if self.folder is not None and not self._loaded:
            session.events.warn_once(
                "passed over",
                EventKind.NOTICE,
                f"{session.address.uri} holds {self.folder.name}, and this run started without load_state(): "
                f"it is kept, and {session.address.uri}@{self.step} leads to it",
            )
        if output_dir is not None and not session.disabled:
            if session.leads_node:
                _unshare(Path(output_dir))
            self._meet("unshared")
        location = self._save(output_dir, *args, **kwargs)
        if not session.disabled:
            self._commit(Path(location))
        return location

    def end_training(self, *args: Any, **kwargs: Any) -> Any:
        """End as accelerate does; the run is over, and the vault notes it."""
        self._on_end()
        return self._end(*args, **kwargs)

    def _commit(self, location: Path) -> None:
        session, world_size = self._session, self._session.ranks.world_size
        self.step = session.step = step_of(location.name, self.step)
        tree = session.output_dir / f"checkpoint-{self.step}"
        self._meet("written")  # each rank writes its own files, in its own time
        try:
            if session.leads_node:
                files.remove_tree(tree)
                _link_tree(location, tree)
            if session.ranks.rank == 0:
                folder = _named_from(self._root, location)
                write_about(
                    tree, step=self.step, world_size=world_size, versions=versions(), folder=str(folder)
                )
        except OSError as error:
            session.events.warn(EventKind.TROUBLE, f"{location} can't be linked to {tree}: {error}")

        def missing(found: Path, paths: set[str]) -> list[str]:
            return self.missing(paths, world_size) + missing_shards(found, paths)

        self._training.save(Save(tree, self.step, missing, self._state.parameters()))
        if session.leads_node:
            files.remove_tree(tree)  # the snapshot has links of its own
        self._on_saved(self.step)

    def missing(self, paths: set[str], world_size: int) -> list[str]:
        """Return what a checkpoint with these files lacks."""
        return needed_of(self._state, paths, world_size)

    def _meet(self, what: str) -> None:
        """Wait for the other ranks."""
        session = self._session
        if session.ranks.world_size > 1:
            try:
                session.ranks.gather(
                    None, tag=f"{what}/{session.coming_seq}", timeout=session.settings.part_timeout
                )
            except RanksError as error:
                session.events.warn(EventKind.TROUBLE, str(error))

    def _put_where_it_was(self, restored: Path) -> Path:
        session = self._session
        about: dict[str, Any] = {}
        session.ranks.on_every_rank(lambda: about.update(read_about(restored)))  # by all, before one moves it
        self.step = int(about["step"])
        target = self._root / _safe(str(about.get("folder", restored.name)))
        session.ranks.on_every_rank(lambda: self._move(restored, target) if session.leads_node else None)
        own = _OWN_NAME.fullmatch(target.name)
        options = self._accelerator.project_configuration
        if options.automatic_checkpoint_naming and own is not None:
            options.iteration = int(own[1]) + 1
        return target

    def _move(self, restored: Path, target: Path) -> None:
        """Move the files of a restored folder into place, and what a dead process left behind it out of the way."""
        files.make_folder(target)
        for path in sorted(restored.rglob("*")):
            if not path.is_dir():
                (target / path.relative_to(restored)).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, target / path.relative_to(restored))
        files.remove_tree(restored)
        own = _OWN_NAME.fullmatch(target.name)
        if own is None or not self._accelerator.project_configuration.automatic_checkpoint_naming:
            return
        aside = self._session.output_dir / LOCAL / "aside"
        for path in target.parent.iterdir():
            other = _OWN_NAME.fullmatch(path.name)
            if other is not None and int(other[1]) > int(own[1]):
                files.make_folder(aside)
                files.remove_tree(aside / f"checkpoint-{other[1]}")
                shutil.move(path, aside / f"checkpoint-{other[1]}")


def needed_of(state: Prepared, paths: set[str], world_size: int) -> list[str]:
    """Return what a folder that save_state has written lacks."""
    return state.missing(paths, world_size) + ([] if ABOUT in paths else [ABOUT])


def step_of(name: str, last: int) -> int:
    """Return the step of a folder from the number in its name, or the next one where that isn't higher. Pure."""
    numbers = re.findall(r"\d+", name)
    return max(int(numbers[-1]) if numbers else 0, last + 1)


def _named_from(root: Path, location: Path) -> PurePosixPath:
    """Return a folder's path from ``root``, or its bare name where it lies elsewhere."""
    try:
        return PurePosixPath(location.resolve().relative_to(root.resolve()).as_posix())
    except ValueError:
        return PurePosixPath(location.name)


def _safe(folder: str) -> PurePosixPath:
    """Return a path that can't lead out of the folder that it is named from."""
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts:
        return PurePosixPath(path.name)
    return path


def _link_tree(source: Path, target: Path) -> None:
    """Give the files of a folder a second name each. Raises OSError."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_dir() or OURS in relative.parts:
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        if not files.link(path, target / relative):
            shutil.copyfile(path, target / relative)


def _unshare(folder: Path) -> None:
    """Make files that a snapshot shares with a folder the folder's own, before they are written again in place."""
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1 and OURS not in path.parts:
            own = path.with_name(f".tmp-{path.name}")
            shutil.copy2(path, own)
            files.rename(own, path)
