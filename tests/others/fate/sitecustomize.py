"""On PYTHONPATH of a program that is to die: SIGKILL to one rank at a step, once, when its vault holds a commit.

The program isn't touched: this waits for torch, and counts the steps of its optimizer. DIE_EMPTY names folders that are
deleted with it, as a lost disk would be.
"""

import os
import shutil
import signal
import sys
import threading
import time


def _committed(vault):
    log = os.path.join(vault, "log")
    for name in os.listdir(log) if os.path.isdir(log) else ():
        with open(os.path.join(log, name)) as file:
            if '"commit"' in file.read():
                return True
    return False


def _watch():
    while "torch.optim" not in sys.modules or not hasattr(sys.modules["torch.optim"], "AdamW"):
        time.sleep(0.005)
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps = 0

    def stepped(*_):
        nonlocal steps
        steps += 1
        if steps == int(os.environ["DIE_AT"]):
            while not _committed(os.environ["DIE_VAULT"]):
                time.sleep(0.01)
            try:
                os.close(os.open(os.environ["DIE_ONCE"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            for folder in filter(None, os.environ.get("DIE_EMPTY", "").split(os.pathsep)):
                shutil.rmtree(folder, ignore_errors=True)
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(stepped)


_launches = any("torchrun" in word or "torch.distributed.run" in word for word in sys.orig_argv)
_rank = os.environ.get("RANK", "0")
if "DIE_AT" in os.environ and _rank == os.environ.get("DIE_RANK", "0") and not _launches:
    threading.Thread(target=_watch, daemon=True).start()
