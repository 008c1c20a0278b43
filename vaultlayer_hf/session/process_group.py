"""The ranks of the process group that torch.distributed has set up in this process.

Each conversation gets a nonce of its own, made by rank 0 and spread by one broadcast of the process group. Only a
collective can: it reaches the ranks of this very group and nobody else, while the group's store may be older than the
group. With ``torchrun --max-restarts`` it belongs to the agent and outlives the workers, so the messages of the attempt
that died are still there; the same holds for a group that is destroyed and made anew, and for two trainers in one
process. The environment can't tell attempts apart: TORCHELASTIC_RESTART_COUNT counts each node's own restarts.
"""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from typing import Any

from vaultlayer_hf.errors import RanksError, SettingsError
from vaultlayer_hf.session.ranks import Ranks

_NONCE_BYTES = 32


def current_ranks(timeout: float = 600.0) -> Ranks:
    """Return the ranks of the process group that is set up, or a single rank where there is none.

    A collective: all ranks must call it, in the same order as their other collectives. ``timeout``: seconds that a rank
    waits for another, here and later. Raises SettingsError where a launcher has started several processes that aren't
    connected, RanksError where a rank stays away.
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
    nonce = _spread_nonce(timeout)
    store: Any = dist.distributed_c10d._get_default_store()
    return Ranks(dist.get_rank(), dist.get_world_size(), store, timeout, nonce)


def _spread_nonce(timeout: float) -> str:
    """Return random characters of rank 0's, the same on all ranks and unknown outside. Raises RanksError."""
    import torch
    import torch.distributed as dist

    try:
        # Bytes in a tensor: what dist.broadcast_object_list receives it unpickles.
        nonce = torch.frombuffer(bytearray(secrets.token_bytes(_NONCE_BYTES)), dtype=torch.uint8)
        nonce = nonce.to(_device_of_collectives())
        work = dist.broadcast(nonce, src=0, async_op=True)
        if work is not None:
            work.wait(timedelta(seconds=timeout))
        return bytes(nonce.cpu().tolist()).hex()
    except RuntimeError as error:  # a rank that is gone, or that doesn't come within the time
        raise RanksError(
            f"not all ranks have come here within {timeout:.0f} s, or one is gone: the process group says "
            f"{(str(error).splitlines() or [''])[0]}"
        ) from error


def _device_of_collectives() -> Any:
    """Return where a tensor must lie for a collective of the default group: the CPU, where its backend can."""
    import torch
    import torch.distributed as dist

    kinds = [device.type for device in dist.distributed_c10d._get_default_group()._device_types]
    if "cpu" in kinds or not kinds:  # none: the group makes its backends at the first collective
        return torch.device("cpu")
    return torch.device(kinds[0], torch.get_device_module(kinds[0]).current_device())
