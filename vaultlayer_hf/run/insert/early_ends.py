"""Rounds of a loop that end by ``continue`` or ``break`` ahead of where others do."""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import method_calls
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.source import Script


def early_ends(script: Script, loop: Loop, *, breaks: bool = False) -> list[Any]:
    """Return the ``continue`` statements of the loop over the batches; ``breaks``: and its ``break`` statements."""
    loops = (cst.For, cst.While)
    kinds = (cst.Continue, cst.Break) if breaks else (cst.Continue,)
    return [
        node
        for node in script.all(kinds, loop.inner.body, nested=False)
        if next(one for one in script.around(node) if isinstance(one, loops)) is loop.inner
    ]


def keeps_gradients(script: Script, loop: Loop, end: Any) -> bool:
    """Tell whether a round that ends early leaves gradients which nothing clears ahead of the next ``backward()``."""
    at = script.span(end)[0]
    back = [script.span(one)[0] for one in method_calls(script, "backward", loop.inner.body)]
    back = [one for one in back if one < at]
    ahead = script.text[script.span(loop.inner.body)[0] : min(back, default=at)]
    return bool(back) and not re.search(r"zero_grad|\.grad\s*=", ahead)
