"""What a spare interpreter may import, and what ends it."""

import _frozen_importlib
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, NoReturn, Protocol

    from vaultlayer_hf.run.inside.startup.vaultlayer_stash import Given

    class Preloader(Protocol):
        """What imports (vaultlayer_preload.py)."""

        given: dict[str, ModuleType]

        def is_allowed(self, spec: Any) -> bool:
            """Tell whether a module is the standard library's, of site-packages, or of this package."""

        def cut(self, reason: str) -> NoReturn:
            """End here."""

else:
    from vaultlayer_stash import Given

NEVER = frozenset({"deepspeed", "bitsandbytes", "vllm", "pynvml", "cupy", "jax", "tensorflow"})
"""Packages that look for a GPU, build extensions or start processes while they are imported."""


class Allowed:
    """Finds modules as all finders behind it do, and ends the spare before it would run one of the user's own."""

    def __init__(self, preloader: "Preloader") -> None:
        self._preloader = preloader

    def look(self, name: str, path: "Any", target: "Any" = None) -> "Any":
        """Return what the finders behind this one find; None where they find nothing."""
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return spec
        return None

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """Find a module that is imported, or asked about."""
        if name in self._preloader.given:
            loader: Any = Given(self._preloader.given[name])
            return _frozen_importlib.ModuleSpec(name, loader, origin="built-in")
        spec = self.look(name, path, target)
        if spec is not None and sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
            if name in NEVER:
                self._preloader.cut(f"{name} isn't imported beforehand")
            if not self._preloader.is_allowed(spec):
                self._preloader.cut(f"{name} is of a folder of your own")
        return spec
