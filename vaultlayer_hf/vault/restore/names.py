"""Names that a disk takes for one: of a Mac or of Windows, where ``A`` and ``a`` are the same file."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Iterable
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import ResumeError


def check_names(paths: Iterable[str], folder: Path) -> None:
    """Raise ResumeError where two of the paths would be one file below ``folder``, which exists.

    One would lie under the other's name there, and whoever had checked the first wouldn't see it. The disk itself is
    asked, and only about paths that differ in nothing but capitals or the form of accents.
    """
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if other != path and _are_one(other, path, folder):
            raise ResumeError(
                f"{folder.parent} takes {other!r} and {path!r} for one name, and the checkpoint has both: choose an"
                " output_dir on a disk that tells capital letters apart"
            )


def _are_one(first: str, second: str, folder: Path) -> bool:
    """Whether a file that is made under the first name is there under the second. Raises OSError."""
    trial = folder / f"names-{uuid.uuid4().hex}"
    try:
        for path in (first, second):
            (trial / path).parent.mkdir(parents=True, exist_ok=True)
        (trial / first).touch()
        return (trial / second).exists()
    finally:
        files.remove_tree(trial)
