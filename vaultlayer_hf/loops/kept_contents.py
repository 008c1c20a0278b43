"""What a list, dict, set or deque holds, brought back into the object that is there: others hold it, too.

ckpt.carry(lambda: {"losses": Checkpointer.contents(losses)})
"""

from __future__ import annotations

from collections import deque
from collections.abc import MutableMapping, MutableSequence, MutableSet
from typing import Any

from vaultlayer_hf.errors import SettingsError


class KeptContents:
    """The contents of a container, with a ``state_dict``.

    Args:
        container: a list, dict, set or deque, or what is made of one.

    Raises SettingsError for anything else.
    """

    def __init__(self, container: Any) -> None:
        if not isinstance(container, (MutableSequence, MutableMapping, MutableSet, deque)):
            raise SettingsError(
                f"contents() takes a list, dict, set or deque, not a {type(container).__name__}: name it in carry() "
                "as it is"
            )
        self._container = container

    def state_dict(self) -> dict[str, Any]:
        """Return them, in their order."""
        held = self._container
        return {"contents": list(held.items() if isinstance(held, MutableMapping) else held)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have the container hold these, and nothing else."""
        self._container.clear()
        if isinstance(self._container, (MutableMapping, MutableSet)):
            for one in state["contents"]:
                if isinstance(self._container, MutableSet):
                    self._container.add(one)
                else:
                    self._container[one[0]] = one[1]
        else:
            self._container.extend(state["contents"])
