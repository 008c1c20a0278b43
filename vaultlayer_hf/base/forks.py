"""What a forked child is to forget: it has its parent's objects, and none of the threads that some of them need.

Whatever leaves the code in which it was forked, by an exception or by sys.exit(), unwinds what the parent is in the
midst of, and functions of atexit run in it, too. What is the parent's to end it must leave alone.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

_methods: set[weakref.WeakMethod[Callable[[], None]]] = set()


def forget_in_children(forget: Callable[[], None]) -> None:
    """Call a method of an object in each child that is forked while the object lives.

    Before anything else runs there, so it takes no lock: another thread of the parent may have held it.
    """
    _methods.add(weakref.WeakMethod(forget, _methods.discard))


def _forget_all() -> None:
    for method in list(_methods):
        forget = method()
        if forget is not None:
            forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
