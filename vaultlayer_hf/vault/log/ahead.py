"""Which file makes a log unreadable at its end, in words that say what to do with it.

Numbers of entries follow one another, and writers never leave one out. So a file far ahead of the others isn't the
log's: somebody has put it there, or what lay between has been deleted.
"""

from __future__ import annotations

from vaultlayer_hf.errors import CorruptError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import LOG, entry_key, entry_number


def unreadable_end(store: Store, number: int, looked_at: int) -> CorruptError:
    """Return the error for a log that ends with entry ``number``, none of whose last ``looked_at`` can be read.

    Costs a listing of the log. Raises StoreError.
    """
    numbers = sorted(filter(None, (entry_number(item.key) for item in store.list(LOG))))
    ahead = [one for one in numbers if one > number - looked_at]
    if not ahead or ahead[0] == 1 or len(ahead) >= looked_at:
        return CorruptError(f"{store.uri}: the newest {len(ahead)} entries of its log are all damaged")
    before = numbers[len(numbers) - len(ahead) - 1] if len(numbers) > len(ahead) else 0
    names = entry_key(ahead[0]) + (f" and {len(ahead) - 1} after it" if len(ahead) > 1 else "")
    place = f"the entry before it is {entry_key(before)}" if before else "no entry stands before it"
    return CorruptError(
        f"{store.uri}: {names} can't be read, and {place}, though a log leaves no number out: delete it, if somebody"
        " has put it there, or bring back what was deleted in between, and start again"
    )
