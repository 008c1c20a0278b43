"""The entry of the log that says that a run is done."""

from __future__ import annotations

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import FencedError
from vaultlayer_hf.session.session import Session


def append_end(session: Session, step: int | None, metrics: dict[str, float]) -> str | None:
    """Append the entry on rank 0; storage trouble is only reported.

    ``step``: at which the run is done; None for that of the run that was over before this one began.
    Returns why to stop where another process took the vault, or None.
    """
    writer = session.writer
    if writer is None:
        return None
    state = writer.state
    done, figures = step, metrics
    if done is None:
        newest = state.newest.step if state.newest is not None else None
        done, figures = state.finished or newest, dict(state.metrics)
    if done is None:
        return None
    try:
        writer.append("finish", lambda state, _: state.done(done, figures), {"step": done})
        session.events.info(EventKind.FINISH, f"run finished at step {done}", step=done)
    except FencedError as error:
        # The uploader, which says it otherwise, hasn't met it.
        session.events.warn(EventKind.FENCED, str(error))
        return str(error)
    except Exception as error:  # the run is done, whatever keeps it from being noted
        what = f"the end of the run can't be noted in the vault: {error}"
        session.events.warn(EventKind.TROUBLE, what)
    return None
