"""What a spare interpreter may import, and what ends it."""

import _frozen_importlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, NoReturn, Protocol

    from vaultlayer_hf.run.inside.startup.vaultlayer_stash import Given

    class Preloader(Protocol):
        """What imports (vaultlayer_preload.py)."""

        given: dict[str, ModuleType]

        def loads_logging(self, module: Any) -> None:
            """Be told of the module logging, once it is there."""

        def cut(self, reason: str) -> NoReturn:
            """End here."""

else:
    from vaultlayer_stash import Given

NEVER = frozenset({"deepspeed", "bitsandbytes", "vllm", "pynvml", "cupy", "jax", "tensorflow"})
"""Packages that look for a GPU, build extensions or start processes while they are imported."""
STANDARD = os.path.dirname(os.__file__) + os.sep
"""Where the standard library lies; a folder of installed packages may lie within."""
_OURS = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../..")) + os.sep


class Allowed:
    """Finds modules as all finders behind it do, and ends the spare before it would run one of the user's own.

    Args:
        preloader: what imports.
        excluded: modules that may not be imported either.

    Attributes:
        missed: names that were looked for, and not found, since somebody has taken them.
    """

    def __init__(self, preloader: "Preloader", excluded: "set[str]") -> None:
        self._preloader, self._excluded = preloader, excluded
        self.missed: set[str] = set()

    def is_to_be_imported(self, name: str) -> bool:
        """Tell whether a module that a script has imported is to be imported beforehand."""
        parent, _, _ = name.rpartition(".")
        if name in sys.modules or name.partition(".")[0] in NEVER or name in self._excluded:
            return False
        if parent and not hasattr(sys.modules.get(parent), "__path__"):
            return False
        if name in self._preloader.given:
            return True
        spec = self.look(name, sys.modules[parent].__path__ if parent else None)
        return spec is not None and is_allowed(spec)

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
        if spec is None:
            self.missed.add(name)
        if spec is not None and sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
            if name in NEVER or name in self._excluded:
                self._preloader.cut(f"{name} isn't imported beforehand")
            if not is_allowed(spec):
                self._preloader.cut(f"{name} is of a folder of your own")
            if name == "logging":
                self._tell_when_loaded(spec.loader)
        return spec

    def _tell_when_loaded(self, loader: "Any") -> None:
        execute = loader.exec_module

        def exec_module(module: "Any") -> None:
            execute(module)
            del loader.exec_module  # the loader stays in the module's spec
            self._preloader.loads_logging(module)

        loader.exec_module = exec_module


def is_allowed(spec: "Any") -> bool:
    """Tell whether a module is the standard library's, of site-packages, or of this package."""
    if spec.origin in ("built-in", "frozen"):
        return True
    if spec.origin:
        return _is_installed(spec.origin)
    # A namespace package: no code of its own, and its modules may lie in the user's folders, too. Or a module that an
    # importer makes up, as six does.
    places = list(spec.submodule_search_locations or ())
    return not places or any(map(_is_installed, places))


def _is_installed(place: str) -> bool:
    return place.startswith((STANDARD, _OURS)) or "-packages" + os.sep in place
