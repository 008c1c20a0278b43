"""What a test needs of the inside of a run: the only place in tests that reaches into private attributes.

session_of(trainer).uploader.wait(0)     what the training's rank holds
listen(trainer, events.append)        every event; also of a callback or a Checkpointer
use_store(trainer, FaultStore(...))   before it trains: the vault lies there
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from vaultlayer_hf import Checkpointer
from vaultlayer_hf.base.events import Event, Events
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.stores.base import Store

Run = TypeVar("Run")


def callback_of(trainer: Any) -> Any:
    """The callback that ties a Trainer to its vault; one that was given to a stock Trainer is that already."""
    return getattr(trainer, "_vaultlayer", trainer)


def session_of(run: Any) -> Session:
    """What this rank holds of the vault: of a Trainer that has begun, its callback, or a Checkpointer."""
    session = run._run.session if isinstance(run, Checkpointer) else callback_of(run).session
    assert session is not None, "the run has no session yet, or no longer"
    return session


def training_of(run: Any) -> Training:
    """What a Trainer or its callback drives while it trains."""
    training: Training | None = callback_of(run).training
    assert training is not None, "the run has no training yet"
    return training


def queue_of(run: Any) -> Any:
    """The queue between a training and its upload thread."""
    return session_of(run).uploader._queue  # type: ignore[union-attr]


def data_of(ckpt: Checkpointer) -> Any:
    """A Checkpointer's place in its data."""
    return ckpt._run.position  # type: ignore[union-attr]


def client_of(store: Any) -> Any:
    """The obstore client of an object store."""
    return store._client


def before_head(store: Any, action: Callable[[str], Any]) -> None:
    """Have ``action(key)`` done each time right before an object store asks for an object's size."""
    inner = store._head

    def head(operation: str, key: str) -> Any:
        action(key)
        return inner(operation, key)

    store._head = head


def loop_files_of(ckpt: Checkpointer) -> Any:
    """What knows which files a checkpoint of a Checkpointer's loop consists of."""
    return ckpt._run.files  # type: ignore[union-attr]


def settle(ckpt: Checkpointer, timeout: float = 30.0) -> None:
    """Wait until what a Checkpointer has saved is uploaded, or given up."""
    uploader = session_of(ckpt).uploader
    deadline = time.monotonic() + timeout
    while uploader is not None and not uploader.wait(0.02):
        assert time.monotonic() < deadline, "the upload isn't done"


def listen(run: Any, listener: Callable[[Event], Any]) -> None:
    """Have a listener told of each event of a Trainer, a callback or a Checkpointer."""
    events: Events = run._events if isinstance(run, Checkpointer) else callback_of(run).run.events
    events.listen(listener)


def use_store(trainer: Run, store: Store) -> Run:
    """Put a store in the place of the one that a trainer's vault would open; returns the trainer."""
    callback_of(trainer).run.open().access._bare = store
    return trainer


def being_written(ckpt: Checkpointer) -> bool:
    """Whether a thread is writing a Checkpointer's save beside its training."""
    saves = getattr(ckpt._run, "_beside", None)
    return saves is not None and saves._capture is not None and not saves._capture.written.done()
