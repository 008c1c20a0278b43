"""Python imports this at its start where `vl run` has put this folder first on PYTHONPATH.

It waits for transformers.trainer and vaultlayer_hf.session.training, and does nothing in a process that imports
neither. No import here costs more than a look at sys.modules: importlib.abc alone would cost 20 ms in every Python
process. The sitecustomize that would have run without this one runs, too.
"""

import _frozen_importlib
import _frozen_importlib_external
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))


class _Finder:
    """Finds nothing itself: has what others find for these modules changed once they are loaded."""

    def __init__(self) -> None:
        self.waits_for = {"transformers.trainer": _trainer, "vaultlayer_hf.session.training": _training}

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        change = self.waits_for.pop(name, None)
        if change is None:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: "Any") -> None:
            execute(module)
            change(module)

        loader.exec_module = exec_module
        return spec


def _training(module: "Any") -> None:
    from vaultlayer_hf.run.inside.observer import install

    install()


def _trainer(module: "Any") -> None:
    try:
        from vaultlayer_hf.run.inside.hook import install
    except ImportError as error:
        sys.stderr.write(
            f"[vaultlayer] nothing is kept: {sys.executable} can't import vaultlayer_hf: {error}\n"
        )
        return
    install(module.Trainer)


def _chain() -> None:
    """Run the sitecustomize that this one hides."""
    sys.path[:] = others = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
    spec = _frozen_importlib_external.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = _frozen_importlib.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if os.environ.get("VAULTLAYER_RUN_ATTEMPT"):
    sys.meta_path.insert(0, _Finder())
_chain()
