"""What `vl doctor` predicts of a run from what its checks have measured. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from vaultlayer_hf.base.text import duration_text, size_text
from vaultlayer_hf.cli.checks import Finding, Measurements
from vaultlayer_hf.state.capture.memory import fits


@dataclass(frozen=True)
class Prediction:
    """What a run with checkpoints of a given size has to expect; seconds and bytes.

    Attributes:
        checkpoint: bytes of one.
        written: the Trainer's own writing, which holds training up with or without a vault.
        stall: what the vault adds to that at each save.
        upload: from a save to its commit; saves that follow each other faster are superseded.
        at_risk: training that a death may cost at most: an interval, and the upload behind it.
        restore: fetching it again on a new machine.
    """

    checkpoint: int
    written: float
    stall: float
    upload: float
    at_risk: float
    restore: float


def predict(size: int, interval: float, measured: Measurements) -> Prediction | None:
    """Predict from what was measured; None where the store or the disk couldn't be.

    Upload: sealing reads and digests the file (at the disk's speed, as measured), then it is sent. Stall: 5 ms for
    a tree of hard links, or a copy where the disk has none.
    """
    if not measured.upload_rate or not measured.download_rate or not measured.disk_rate:
        return None
    written = size / measured.disk_rate
    upload = size / measured.disk_rate + size / measured.upload_rate + 4 * (measured.latency or 0.0)
    return Prediction(
        checkpoint=size,
        written=written,
        stall=0.005 if measured.links else written,
        upload=upload,
        at_risk=interval + upload,
        restore=size / measured.download_rate,
    )


def judge_copy(found: Prediction, interval: float, free: int | None, *, asked: bool) -> Finding:
    """Say whether saves can be written beside the training, from a copy in host memory.

    Args:
        found: what was predicted.
        interval: seconds between two saves.
        free: bytes that a process on this machine may still take; None where that isn't known.
        asked: whether ``async_save`` asks for it.
    """
    copy = size_text(found.checkpoint)
    has = f"{size_text(free)} are free here" if free is not None else "what is free here isn't known"
    if not fits(found.checkpoint, free):
        text = (
            f"a save can't be written beside the training: its copy of {copy} in host memory is too much, {has}; so "
            "training waits at each save until its files are written, with or without a vault"
        )
        fix = (
            "give the training more memory, or expect it to wait for the files of each save" if asked else ""
        )
        return Finding("async_save", "warning" if asked else "ok", text, fix)
    text = f"a save can be written beside the training: its copy takes {copy} of host memory beside it, {has}"
    if found.written > interval:
        text += f"; at this disk's speed the next save comes first, and waits up to {duration_text(found.written)}"
        fix = f"save every {duration_text(found.written)} or more rarely" if asked else ""
        return Finding("async_save", "warning" if asked else "ok", text, fix)
    return Finding("async_save", "ok", text + ("" if asked else " (async_save is off)"))


def judge(found: Prediction, interval: float, whose: str = "") -> Finding:
    """Say whether a prediction is fine; ``whose``: what is said of the checkpoint's size, where nobody named it."""
    upload, every = duration_text(found.upload), duration_text(interval)
    text = (
        f"a checkpoint of {size_text(found.checkpoint)}{whose}: a save holds training up for the "
        f"{duration_text(found.written)} in which its files are written, and for {duration_text(found.stall)} more "
        f"with a vault; it is committed {upload} after the save; saving every {every}, a death costs "
        f"{duration_text(found.at_risk)} at most, and {duration_text(found.restore)} to fetch it again"
    )
    if found.upload > interval:
        fix = f"save every {upload} or more rarely: a newer checkpoint replaces one that still waits"
        return Finding("prediction", "warning", text, fix)
    return Finding("prediction", "ok", text)
