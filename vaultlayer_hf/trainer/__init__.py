"""The Trainer's seam: with run/inside the only place that imports transformers, and only when a name is asked for.

    trainer.py     Trainer and resumable: the argument ``resume=``
    call.py        a call of train(), with an argument replaced
    callback.py    maps the Trainer's events
    run.py         one Trainer's run on its vault: claimed, gone on from, ended
    saving.py      its saves: the place is cleared, a full disk costs one checkpoint
    terms.py       the Trainer's terms in those of a session
    over.py        whether a run is over already
    layout.py      the files of the Trainer's own checkpoint folder
    data.py        the place in the data, with each checkpoint; in files of their own: data_file.py
    skipping.py, evaluations.py   what of the Trainer takes part in following the data
    figures.py     the vault's figures in the Trainer's logs
    zero.py        DeepSpeed's checkpoints on another number of ranks

``Trainer`` and ``resumable`` can be imported from here as well, which pickles of a Trainer may ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaultlayer_hf.trainer.trainer import Trainer, resumable

__all__ = ["Trainer", "resumable"]


def __getattr__(name: str) -> Any:
    if name not in (*__all__, "_rebuild"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vaultlayer_hf.trainer import trainer

    return getattr(trainer, name)
