"""What a start asks for, against what its checkpoint was made with; and kept with each checkpoint. All ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.adapters import holds_base, read_adapters
from vaultlayer_hf.state.asked import Asked, check_asked, in_force, read_asked


def say_what_differs(
    session: Session,
    folder: Path,
    now: Asked,
    holds: Mapping[str, str],
    *,
    over: bool,
    named_seed: bool = False,
    over_but_for_data: bool = False,
) -> Asked:
    """Compare what a start asks for with what a checkpoint folder was made with, and say it. All ranks.

    Returns what training goes on with: what its own checkpoints are made with.

    ``holds``: by the name of an argument, which of the two holds. ``named_seed`` and ``over_but_for_data``: see
    ``check_asked``.
    Raises, on all ranks, OtherRunError and RanksError.
    """
    words: list[str] = []
    then = read_asked(folder) or Asked()

    def check() -> None:
        nonlocal then
        if not then.adapters.configs and now.adapters.configs:
            then = replace(then, adapters=read_adapters(folder))
        base = holds_base(folder)
        at = f"{session.address.uri}@{folder.name.rpartition('-')[2]}"
        found = check_asked(
            then,
            now,
            holds,
            over=over,
            holds_base=base,
            named_seed=named_seed,
            over_but_for_data=over_but_for_data,
            at=at,
        )
        words.extend(found)

    session.ranks.on_every_rank(check)
    for one in words:
        session.warn_all(EventKind.NOTICE, one)
    return in_force(then, now, holds)


def keep_asked(folder: Path, session: Session, asked: Asked) -> None:
    """Write what a training is asked for into a checkpoint folder that is being saved; on rank 0. Never raises."""
    if session.ranks.rank != 0:
        return
    try:
        asked.write(folder)
    except Exception as error:  # a disk's, or of what a model's own configuration holds
        session.events.warn_once(
            "asked", EventKind.TROUBLE, f"{folder.name}: a start can't be compared with this one: {error}"
        )
