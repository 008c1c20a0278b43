"""Python imports this at its start where `vl run` has put this folder first on PYTHONPATH.

It waits for transformers.trainer and vaultlayer_hf.session.training, and does nothing in a process that imports
neither, but for telling `vl run` what is imported (imports.py says how). No import here costs more than a look at
sys.modules: importlib.abc alone would cost 20 ms in every Python process. The sitecustomize that would have run without
this one runs, too. In a spare interpreter Python's start stops here until the spare's turn comes (preload.py).
"""

import _frozen_importlib
import _frozen_importlib_external
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_OWN = "VAULTLAYER_RUN_"
_LARGEST = 8 * 2**20
"""Bytes of the record of all processes of an attempt: one that starts Python again and again must not fill memory."""


class _Recorder:
    """Tells `vl run` what this process imports, and with which environment and sys.path. Opens nothing for longer."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._environment = dict(os.environ)
        self._raw = dict(getattr(os.environ, "_data", {}))
        self._sys_path: list[str] = []
        self._folder = os.getcwd()
        self._streams = sys.stdout, sys.stderr

    def imports(self, name: str) -> bool:
        """Note an import that begins; return whether further ones are to be noted."""
        lines: list[tuple[str, Any]] = []
        raw = getattr(
            os.environ, "_data", None
        )  # as it is encoded: 50 times quicker to compare, at every import
        if raw is None or raw != self._raw:
            now, self._raw = dict(os.environ), dict(raw or {})
            changed = {
                key for key in {*now, *self._environment} if now.get(key) != self._environment.get(key)
            }
            lines += [("e", (key, now.get(key))) for key in sorted(changed) if not key.startswith(_OWN)]
            self._environment = now
        if sys.path != self._sys_path:
            self._sys_path = list(sys.path)
            lines.append(("p", self._sys_path))
        going = os.getcwd() == self._folder and (sys.stdout, sys.stderr) == self._streams
        lines.append(
            ("i", name) if going else ("!", "the script has changed its folder, or replaced stdout or stderr")
        )
        text = "".join(f"{os.getpid()}\t{kind}\t{what!a}\n" for kind, what in lines)
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                return os.write(file, text.encode()) > 0 and os.fstat(file).st_size < _LARGEST and going
            finally:
                os.close(file)
        except OSError:
            return False  # `vl run` is gone, or out of reach: nothing then asks for it


class _Finder:
    """Finds nothing itself: has what others find for these modules changed once they are loaded."""

    def __init__(self) -> None:
        self.waits_for = {
            "transformers.trainer": _trainer,
            "vaultlayer_hf.session.training": _training,
            "torch.distributed.launcher.api": _launcher,
        }
        self.recorder: _Recorder | None = None

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        # Whoever only asks whether there is such a module (importlib.util.find_spec) doesn't import it.
        if self.recorder is not None and sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
            try:
                going = self.recorder.imports(name)
            except Exception:  # such as a working directory that was deleted
                going = False
            if not going:
                self.recorder = None
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


def _launcher(module: "Any") -> None:
    """Have torchrun start ranks by way of a process that has the imports done (vaultlayer_rank.py)."""
    usual = module.elastic_launch.__init__

    def initialize(self: "Any", config: "Any", entrypoint: "Any", *rest: "Any", **more: "Any") -> None:
        folder = os.environ.get("VAULTLAYER_RUN_RANKS")
        # Not what PYTHON_EXEC names, nor a function.
        if folder and entrypoint == sys.executable and os.access(f"{folder}/python", os.X_OK):
            os.environ["VAULTLAYER_RUN_PYTHON"], entrypoint = entrypoint, f"{folder}/python"
        usual(self, config, entrypoint, *rest, **more)

    module.elastic_launch.__init__ = initialize


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


class _KeptExits:
    """Keeps functions that imports register for the end of the process, until somebody registers them in their order.

    From the first import of the spare's own on: the script's own functions come before those of what it imports later.
    """

    def __init__(self) -> None:
        import atexit  # built into Python

        self._atexit: Any = atexit
        self._register, self._unregister = self._atexit.register, self._atexit.unregister
        self._kept: list[tuple[Any, Any, Any]] = []
        self._keeps = True
        for name, function in (("register", self._keep), ("unregister", self._drop)):
            setattr(self._atexit, name, function)

    def module(self) -> "Any":
        """Return the module atexit that keeps: one that Python imports anew wouldn't."""
        return self._atexit

    def taken(self) -> "list[tuple[Any, Any, Any]]":
        """Return what was kept since the last call: functions with their arguments."""
        found, self._kept = self._kept, []
        return found

    def end(self) -> None:
        """Keep no more."""
        self._keeps = False  # a library may have taken the name of _keep for itself
        for name, function in (("register", self._register), ("unregister", self._unregister)):
            setattr(self._atexit, name, function)

    def _keep(self, function: "Any", /, *args: "Any", **kwargs: "Any") -> "Any":
        if not self._keeps:
            return self._register(function, *args, **kwargs)
        self._kept.append((function, args, kwargs))
        return function

    def _drop(self, function: "Any", /) -> None:
        self._kept = [one for one in self._kept if one[0] != function]
        self._unregister(function)


def _wait_for_turn(handles: str) -> None:
    """Be the spare: import beforehand, wait, and go on with Python's start only when the turn has come."""
    known, exits = set(sys.modules), _KeptExits()
    first, second, *ranks = handles.split(",", 2)
    control, instructions = int(first), int(second)
    try:
        sys.path.insert(0, _HERE)
        if TYPE_CHECKING:
            from vaultlayer_hf.run.inside.startup.vaultlayer_preload import wait_for_turn
        else:
            from vaultlayer_preload import wait_for_turn

        sys.path.remove(_HERE)
        for name in set(sys.modules) - known:
            del sys.modules[name]  # the script is to see nothing of what the spare itself needs
        wait_for_turn(known, exits, control, instructions, *ranks)
    except BaseException as error:
        # Never on into the script, which another process is training right now.
        os.write(control, ascii({"failed": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(1)


_spare = os.environ.pop("VAULTLAYER_RUN_SPARE", None)
_record = os.environ.pop("VAULTLAYER_RUN_IMPORTS", None)
_finder = None
if _spare is not None or os.environ.get("VAULTLAYER_RUN_ATTEMPT"):
    _finder = _Finder()
    sys.meta_path.insert(0, _finder)
_chain()
if _spare is not None:
    _wait_for_turn(_spare)
elif _record is not None and _finder is not None:
    os.environ["VAULTLAYER_RUN_IMPORTS"] = _record  # for the processes that this one starts
    _finder.recorder = _Recorder(_record)
