"""What a train() goes on from where the script names a checkpoint: ``train(resume_from_checkpoint=…)``.

``True`` and a checkpoint folder of the run's own output_dir, as get_last_checkpoint finds it, mean "go on where you
can": the newest checkpoint of the vault is that. A kill in the middle of a save leaves half a folder, which stock
transformers loads as far as it goes, and a new machine has none at all. Only where the vault holds no checkpoint the
script is followed, as far as its folders are whole.

A folder elsewhere is a choice, and wins, once: a script is started again as it stands, and must not throw away what it
has trained since. So the claim notes the folder (``NAMED``), and where the newest commit is of a run whose claim notes
the same one, the run goes on from that commit.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Protocol

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import CorruptError, NoSuchCheckpointError, ObjectNotFoundError, StoreError
from vaultlayer_hf.session.output_dir import checkpoints
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.loadable import LoadTrial
from vaultlayer_hf.trainer.layout import WEIGHTS, missing_files
from vaultlayer_hf.trainer.loadable import kind_of
from vaultlayer_hf.trainer.run import TrainerRun

NAMED = "named"
"""Name in a claim's detail: the folder elsewhere that the run began from, as the script says it."""
Explicit = str | os.PathLike[str] | bool | None
"""What a script may name."""


class RunCallback(Protocol):
    """What is asked here of a VaultLayerCallback, which itself begins trainings by this."""

    run: TrainerRun

    def pull(self) -> str | None: ...
    def stand_last(self) -> None: ...
    def close(self) -> None: ...


def choose(vault: RunCallback, trainer: Any, explicit: Explicit) -> Explicit:
    """Claim the vault and return what to resume from, given what the script names. All ranks.

    Raises what ``VaultLayerCallback.pull`` raises.
    """
    if not explicit:  # an empty text is an option that wasn't given
        return vault.pull() or (False if explicit is False else None)
    output_dir, world_size = Path(str(trainer.args.output_dir)), trainer.args.world_size
    explicit = str(explicit) if isinstance(explicit, os.PathLike) else explicit
    if str(explicit).lower() == "true" and not Path(str(explicit)).is_dir():  # as a command line hands it on
        explicit = True
    session = vault.run.open()
    holds, named_before = session.ranks.on_rank_zero(
        lambda: _look(session), within=3 * session.settings.resume_timeout
    )
    says = f"train(resume_from_checkpoint={explicit!r})"
    if isinstance(explicit, str) and Path(explicit).absolute().resolve() == output_dir.absolute().resolve():
        explicit = True  # the folder of all its checkpoints
    if isinstance(explicit, str) and not _is_own(output_dir, Path(explicit)):
        session.noted[NAMED] = explicit
        if named_before != explicit:
            return _from_elsewhere(vault, session, explicit, says, world_size)
    elif not holds:
        folder, why = _newest_whole(session, output_dir, explicit, world_size)
        return _from_own_folder(vault, session, folder, says, why)
    return _from_vault(vault, session, says)


def _from_elsewhere(vault: RunCallback, session: Session, folder: str, says: str, world_size: int) -> str:
    """Begin from a folder that isn't one of the run's own checkpoints, whatever the vault holds."""
    session.ranks.on_every_rank(lambda: _check_there(folder, says))
    lacking = _missing(_paths(Path(folder)), world_size)
    _start(vault, folder, f"{says} wins over the vault {session.address.uri}")
    if lacking:
        session.warn_all(EventKind.NOTICE, f"{folder} lacks {lacking}: that starts anew")
    return folder


def _from_own_folder(
    vault: RunCallback, session: Session, folder: Path | None, says: str, why: str
) -> str | None:
    """Begin from a whole checkpoint in output_dir, where the vault holds none; ``folder``: None where none is whole."""
    if folder is not None:
        _start(
            vault, str(folder), f"the vault holds no checkpoint: {says} is followed, as the script says{why}"
        )
        return str(folder)
    path = vault.pull()
    if path is None:
        session.warn_all(
            EventKind.NOTICE,
            f"the vault holds no checkpoint, and {says} can't be followed, so the run starts fresh{why}",
        )
    return path


def _from_vault(vault: RunCallback, session: Session, says: str) -> str | None:
    """Go on from the vault, and say so where it isn't what the script names."""
    path = vault.pull()
    if path is not None and session.forked is not None:
        session.events.info(
            EventKind.NOTICE, f"the fork wins over {says}: the run begins from {Path(path).name} of it"
        )
    elif path is not None:
        session.events.info(
            EventKind.NOTICE,
            f"the vault wins over {says}: it holds {Path(path).name}, which this run goes on from; "
            f"resume='{session.address.uri}@STEP' goes back to an older one, an empty vault begins with what is named",
        )
    return path


def _check_there(explicit: str, says: str) -> None:
    """Raise NoSuchCheckpointError for a folder that isn't there, or is no checkpoint's, ahead of the claim."""
    if not Path(explicit).is_dir():
        raise NoSuchCheckpointError(
            f"{says} names a folder that isn't there: leave the argument out, and the run goes on from the newest "
            "checkpoint of its vault; or name a checkpoint's folder on this disk. Nothing was trained"
        )
    if WEIGHTS in missing_files(_paths(Path(explicit))):
        raise NoSuchCheckpointError(
            f"{says} names a folder without a model's weights: leave the argument out, and the run goes on from the "
            "newest checkpoint of its vault; or name a checkpoint's folder, as …/checkpoint-500. Nothing was trained"
        )


def _start(vault: RunCallback, explicit: str, why: str) -> None:
    vault.stand_last()
    vault.run.start(explicit, why)


def _look(session: Session) -> tuple[bool, str | None]:
    """Return whether a vault holds a checkpoint, and which folder its newest run has begun from. On rank 0."""
    _, entry = session.access.last()
    newest = entry.state.newest if entry is not None else None
    if newest is None:
        # The vault that this run is a fork of holds a checkpoint; where it doesn't, the start is an error.
        return session.origin is not None, None
    try:
        named = session.access.log().read(newest.token).detail.get(NAMED)
    except (CorruptError, ObjectNotFoundError):
        named = None
    except StoreError as error:
        raise session.access.unreachable(error) from error
    return True, named if isinstance(named, str) else None


def _is_own(output_dir: Path, folder: Path) -> bool:
    """Return whether a folder is a checkpoint of the run's own output_dir."""
    return re.fullmatch(r"checkpoint-\d+", folder.name) is not None and (
        folder.absolute().parent.resolve() == output_dir.absolute().resolve()
    )


def _newest_whole(
    session: Session, output_dir: Path, explicit: str | bool, world_size: int
) -> tuple[Path | None, str]:
    """Return the newest whole checkpoint in output_dir, up to the named one, and why no newer one. All ranks."""
    last = None if explicit is True else int(Path(str(explicit)).name.removeprefix("checkpoint-"))
    here = {
        step: (folder, _paths(folder))
        for step, folder in checkpoints(output_dir).items()
        if last is None or step <= last
    }

    torn: dict[int, str] = {}
    """By its step what can't be loaded of a folder that has all files: the same on all ranks."""

    def pick(found: list[dict[int, set[str]]]) -> tuple[int | None, str]:
        steps = sorted({step for ranks_own in found for step in ranks_own}, reverse=True)
        reasons = [] if last is None or last in steps else [f"{output_dir}/checkpoint-{last} isn't there"]
        for step in steps:
            if step in torn:
                reasons.append(f"checkpoint-{step}: {torn[step]}")
                continue
            # The folder may be one of all nodes, or each node's own with the files of its ranks.
            lacking = _missing({path for ranks_own in found for path in ranks_own.get(step, ())}, world_size)
            if not lacking and all(step in ranks_own for ranks_own in found):
                return step, f"; {'; '.join(reasons)}" if reasons else ""
            reasons.append(f"checkpoint-{step} lacks {lacking or 'its folder on some node'}")
        return None, f": {'; '.join(reasons) or f'{output_dir} holds none'}"

    own = {step: paths for step, (_, paths) in here.items()}
    while True:
        step, why = session.ranks.decide(own, pick)
        if step is None:
            return None, why
        # A power cut may have torn a file whose name is there.
        bad = session.ranks.decide(LoadTrial(kind_of)(*here[step]), _first_of_any)
        if not bad:
            return (Path(str(explicit)) if step == last else here[step][0]), why
        torn[step] = bad


def _first_of_any(found: list[list[str]]) -> str:
    return next((one for ranks_own in found for one in ranks_own), "")


def _paths(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _missing(paths: set[str], world_size: int) -> str:
    return ", ".join(missing_files(paths, world_size))
