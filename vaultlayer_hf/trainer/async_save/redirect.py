"""Stock's own save, made to write into another folder than it knows of, and to delete older ones in another way."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import transformers.modeling_utils
import transformers.trainer

from vaultlayer_hf.state.capture.recorded import SAVE_FILE, Place
from vaultlayer_hf.trainer.layout import SAVE_PARTS
from vaultlayer_hf.trainer.wrapping import wrapped


def places() -> list[Place]:
    """Return where the libraries that save models look up ``save_file``, those that are imported."""
    found: list[Place] = [(transformers.modeling_utils, "safe_save_file")]
    peft = sys.modules.get("peft.peft_model")
    if peft is not None:
        found += [(peft, "safe_save_file"), (peft, SAVE_FILE)]
    return [(module, name) for module, name in found if hasattr(module, name)]


@contextmanager
def redirected(
    trainer: Any, target: Path, folder: Path, rotations: list[Callable[[], object]]
) -> Iterator[None]:
    """Have a save write into ``folder`` while it thinks that it writes to ``target``.

    It asks whether ``target`` exists, to note it as the best checkpoint, and is told that it does. Its rotation of
    older checkpoints is put off, into ``rotations``: the folder that it would count isn't there yet.
    """

    def there(value: Any) -> Any:
        if not isinstance(value, (str, os.PathLike)):
            return value
        path = os.path.normpath(os.fspath(value))
        if path == os.path.normpath(target):
            return str(folder)
        head, name = os.path.split(path)
        return str(folder / name) if head == os.path.normpath(target) else value

    def elsewhere(part: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return part(*map(there, args), **{name: there(value) for name, value in kwargs.items()})

        return call

    def later(rotate: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> None:
            if threading.get_ident() != thread:
                rotate(*args, **kwargs)
                return
            rotations.append(lambda: rotate(*args, **kwargs))

        return call

    thread, exists = threading.get_ident(), os.path.exists

    def exists_there(path: Any) -> bool:
        return exists(there(path) if threading.get_ident() == thread else path)

    with ExitStack() as stack:
        stack.enter_context(wrapped(trainer, dict.fromkeys(SAVE_PARTS, elsewhere)))
        stack.enter_context(wrapped(trainer.state, {"save_to_json": elsewhere}))
        stack.enter_context(wrapped(trainer, {"_rotate_checkpoints": later}))
        stack.enter_context(wrapped(transformers.trainer, {"rotate_checkpoints": later}))
        stack.enter_context(wrapped(os.path, {"exists": lambda _: exists_there}))
        yield


@contextmanager
def deleting(delete: Callable[[Path], object]) -> Iterator[None]:
    """Have the folders that this thread deletes meanwhile deleted by ``delete``; as ever where that raises OSError."""
    thread = threading.get_ident()

    def elsewhere(remove: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread and not os.path.islink(path):
                try:
                    return delete(Path(path))
                except OSError:
                    pass
            return remove(path, *args, **kwargs)

        return call

    with wrapped(shutil, {"rmtree": elsewhere}):
        yield
