"""The ranks of the process group that torch.distributed has set up in this process."""

from __future__ import annotations

import itertools
import os
from typing import Any

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.session.ranks import Ranks

_made = itertools.count()
"""Numbers the conversations of this process: two Trainers in one process group mustn't read each other's keys."""


def current_ranks(timeout: float = 600.0) -> Ranks:
    """Return the ranks of the process group that is set up, or a single rank where there is none.

    All ranks must call it, equally often. Raises SettingsError where a launcher has started several processes
    that aren't connected.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        if int(os.environ.get("WORLD_SIZE") or 1) > 1 and "RANK" in os.environ:
            raise SettingsError(
                f"a launcher has started {os.environ['WORLD_SIZE']} processes, and no process group connects them: "
                "each would train alone, all on one vault. Set up torch.distributed first"
            )
        return Ranks()
    if dist.get_world_size() == 1:
        return Ranks()
    store: Any = dist.distributed_c10d._get_default_store()
    return Ranks(dist.get_rank(), dist.get_world_size(), store, timeout, name=str(next(_made)))
