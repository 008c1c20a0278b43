"""Stores of other authors: a package names its store under an entry point, by the scheme of its addresses.

    [project.entry-points."vaultlayer_hf.stores"]
    sqlite = "my_stores:SqliteStore"

Then ``sqlite:///data/vaults.db`` is a vault address, and ``SqliteStore("sqlite:///data/vaults.db")`` opens it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaultlayer_hf.errors import MissingExtraError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from vaultlayer_hf.stores.base import Store

GROUP = __name__.removesuffix(".others")
"""Name of the entry points: that of this package."""


def store_of(scheme: str) -> EntryPoint | None:
    """Return the entry point of a scheme, unloaded; None where no installed package has one."""
    from importlib.metadata import entry_points  # 25 ms, and few ever come here

    return next(iter(entry_points(group=GROUP, name=scheme)), None)


def open_other(scheme: str, uri: str) -> Store:
    """Open a store of another author by the URI of its vault.

    Raises MissingExtraError where the package is gone or can't be imported, and what the store itself raises.
    """
    point = store_of(scheme)
    if point is None:
        raise MissingExtraError(f"no installed package opens {scheme}:// vaults")
    try:
        make = point.load()
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(
            f"the package that opens {scheme}:// vaults can't be imported: {error}"
        ) from error
    store: Store = make(uri)
    return store
