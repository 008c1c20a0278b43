"""Which names are read behind a loop: what it leaves in them must be there behind a resume at its end, too."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.source import Script
from vaultlayer_hf.run.insert.walk import Walk


def read_behind(script: Script, loop: Loop, node: Any) -> dict[str, int]:
    """Return the names that are read behind a loop, in its function, before they are written; each with its line.

    ``node``: the outermost loop of ``loop``, or the one over its batches. Where each round of a loop around it is a
    training, the next round is behind it as well.
    """
    walk = Walk(script)
    around: Any = loop.trainings.around if loop.trainings is not None else None
    inner = node is loop.inner
    while True:
        block = script.parent(node)
        body = getattr(block, "body", ())
        if isinstance(body, (list, tuple)) and any(one is node for one in body):
            position = next(number for number, one in enumerate(body) if one is node)
            walk.block(body[position + 1 :])
        if block is None or isinstance(block, (cst.FunctionDef, cst.Module)):
            return walk.read_first
        if block is around:
            walk.target(around.target)
            walk.block(around.body.body)
        elif isinstance(block, (cst.For, cst.While)) and inner:
            return walk.read_first
        node = block
