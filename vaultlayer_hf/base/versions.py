"""The version of this release, and those of the libraries that write a checkpoint."""

from __future__ import annotations

import functools

__version__ = "0.2.0"


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the libraries that write a checkpoint, as far as they are installed; don't change it."""
    import importlib.metadata

    found = {"vaultlayer-hf": __version__}
    for name in ("torch", "transformers", "accelerate"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found
