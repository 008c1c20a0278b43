"""Ranks on a store that is older than they are, as torchrun's own restarts make them.

The agent's store outlives the workers, and gloo itself trips over the addresses that a dead attempt has left there: a
restart on CPUs hangs at times before any of our code runs. So what gloo has left is removed here, and nothing else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

from tests.ranks import train_ranks


def forget_gloo(store: Any) -> None:
    """Remove what a dead process group has left in a store, and leave the words of the ranks."""
    for key in store.list_keys():
        if "vaultlayer/" not in key:
            store.delete_key(key)


def talk(port: int, rank: int, attempt: int, result: str, slow: float = 0.0) -> None:
    """Be a rank of an attempt: learn what rank 0 says, say that this rank has left; then as a second group, anew."""
    import time

    import torch.distributed as dist

    from vaultlayer_hf.session.process_group import current_ranks

    store = TCPStore("127.0.0.1", port, is_master=False)
    heard = []
    for group in range(2):
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
        ranks = current_ranks(20.0)
        time.sleep(slow if rank == 0 else 0.0)
        heard.append([ranks.get_status("left"), ranks.broadcast(f"attempt {attempt}, group {group}")])
        ranks.gather(None)
        ranks.leave()
        dist.barrier()
        dist.destroy_process_group()
        if rank == 0:
            forget_gloo(store)
            store.set(f"clean {attempt} {group}", "")
        else:
            store.wait([f"clean {attempt} {group}"])
    Path(result).write_text(json.dumps(heard))


def main() -> None:
    """Be the rank that torchrun has started, or started again: as ``tests.ranks.train_ranks``."""
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if attempt:
        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        if os.environ["RANK"] == "0":
            forget_gloo(store)
            store.set(f"clean {attempt}", "")
        store.wait([f"clean {attempt}"])
    train_ranks.main()


if __name__ == "__main__":
    main()
