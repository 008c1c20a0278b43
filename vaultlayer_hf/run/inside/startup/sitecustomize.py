"""Python imports this at its start where `vl run` has put this folder first on PYTHONPATH.

It waits for transformers.trainer, vaultlayer_hf.session.training and torch's optimizers, and does nothing in a process
that imports none of them, but for telling `vl run` what is imported (imports.py says how). No import here costs more
than a look at sys.modules: importlib.abc alone would cost 20 ms in every Python process. The sitecustomize that would
have run without this one runs, too. In a spare interpreter Python's start stops here until the spare's turn comes
(preload.py).
"""

import _frozen_importlib
import _frozen_importlib_external
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vaultlayer_hf.run.inside.startup.vaultlayer_recorder import Recorder

_HERE = os.path.dirname(os.path.abspath(__file__))


class _Finder:
    """Finds nothing itself: has what others find for these modules changed once they are loaded."""

    def __init__(self) -> None:
        self.waits_for = {
            "transformers.trainer": _trainer,
            "vaultlayer_hf.session.training": _training,
            "torch.distributed.launcher.api": _launcher,
            "accelerate.utils.launch": _single_launcher,
            "torch.optim.optimizer": _optimizer,
        }
        self.recorder: Recorder | None = None

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        # Whoever only asks whether there is such a module (importlib.util.find_spec) doesn't import it.
        if self.recorder is not None and sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
            try:
                going = self.recorder.imports(name)
            except Exception as error:  # such as a working directory that was deleted
                self.recorder.stop(f"{type(error).__name__}: {error}")
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


def _optimizer(module: "Any") -> None:
    try:
        from vaultlayer_hf.run.inside.unkept import install
    except ImportError:
        return  # said where a Trainer is imported
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
        _end_quickly(module.ChildFailedError)  # not before: an import must leave the hook as it is

    module.elastic_launch.__init__ = initialize


_LAUNCHERS = (
    "torch.distributed.run",
    "torch.distributed.launch",
    "accelerate.commands.launch",
    "accelerate.commands.accelerate_cli",
)
"""Programs that do nothing but start ranks, by the modules that their commands run."""


def _end_quickly(failed: "Any") -> None:
    """Have a launcher that has said whose end ended it leave at once behind its exit functions.

    To take apart what torch has made would take a second, in which the ranks could begin again.
    """
    usual = sys.excepthook

    def excepthook(kind: "Any", error: "Any", trace: "Any") -> None:
        usual(kind, error, trace)
        main = sys.modules["__main__"]
        names = [getattr(getattr(main, "__spec__", None), "name", None)]  # by -m, or by the command's script
        names.append(getattr(getattr(main, "main", None), "__module__", None))
        if not isinstance(error, failed) or not any(name in _LAUNCHERS for name in names):
            return
        import atexit

        threading: Any = sys.modules["threading"]
        threading._shutdown()  # as Python's end does it
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)

    sys.excepthook = excepthook


def _single_launcher(module: "Any") -> None:
    """The same for `accelerate launch` with one process, which it starts by itself."""
    usual = module.prepare_simple_launcher_cmd_env

    def prepare_simple_launcher_cmd_env(*args: "Any", **more: "Any") -> "Any":
        command, environment = usual(*args, **more)
        folder = environment.get("VAULTLAYER_RUN_RANKS")
        if folder and command[0] == sys.executable and os.access(f"{folder}/python", os.X_OK):
            environment["VAULTLAYER_RUN_PYTHON"], command[0] = command[0], f"{folder}/python"
        return command, environment

    module.prepare_simple_launcher_cmd_env = prepare_simple_launcher_cmd_env


def _trainer(module: "Any") -> None:
    try:
        from vaultlayer_hf.run.inside.hook import install
    except ImportError as error:
        sys.stderr.write(
            f"[vaultlayer] nothing is kept: {sys.executable} can't import vaultlayer_hf: {error}\n"
        )
        return
    install(module.Trainer)


def _hidden() -> "Any":
    """Return the spec of the sitecustomize that this one hides; None where there is none."""
    sys.path[:] = others = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
    return _frozen_importlib_external.PathFinder.find_spec("sitecustomize", others)


def _is_own(spec: "Any") -> bool:
    """Tell whether a sitecustomize is of a folder of the user's own."""
    place = str(spec.origin)
    return "-packages" + os.sep not in place and not place.startswith(os.path.dirname(os.__file__) + os.sep)


def _run(spec: "Any") -> None:
    """Run a sitecustomize; what it raises goes on to whoever asked, as Python's start would see it."""
    module = _frozen_importlib.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _finders() -> "list[Any]":
    return [*sys.meta_path, *sys.path_hooks, sys.modules["builtins"].__import__]


def _run_recorded(spec: "Any", recorder: "Recorder") -> None:
    """Run the user's own sitecustomize, whose imports are noted, too: a spare leaves it to its turn."""
    before = _finders()
    try:
        _run(spec)
    finally:
        if _finders() != before:
            recorder.stop("the sitecustomize of your own changes how modules are found")


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


def _ours(name: str, known: "set[str]") -> "Any":
    """Import a module of this folder; the script is to see nothing of it, nor of what else isn't known yet."""
    sys.path.insert(0, _HERE)
    try:
        return __import__(name)
    finally:
        sys.path.remove(_HERE)
        for new in set(sys.modules) - known:
            del sys.modules[new]


def _wait_for_turn(handles: str) -> None:
    """Be the spare: import beforehand, wait, and go on with Python's start only when the turn has come."""
    known, exits = set(sys.modules), _KeptExits()
    first, second, *ranks = handles.split(",", 2)
    control, instructions = int(first), int(second)
    try:
        wait_for_turn = _ours("vaultlayer_preload", known).wait_for_turn
        wait_for_turn(known, exits, control, instructions, *ranks)
    except BaseException as error:
        # Never on into the script, which another process is training right now.
        os.write(control, ascii({"failed": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(1)


def _begin() -> None:
    """Do what this process is started for; a sitecustomize that is hidden runs within, and may raise."""
    spare = os.environ.pop("VAULTLAYER_RUN_SPARE", None)
    record = os.environ.pop("VAULTLAYER_RUN_IMPORTS", None)
    finder = None
    if spare is not None or os.environ.get("VAULTLAYER_RUN_ATTEMPT"):
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    hidden = _hidden()
    own = hidden is not None and _is_own(hidden)
    if spare is not None:
        # What it raises must not lead on into the script, which another process is training right now.
        error = None
        try:
            if hidden is not None and not own:
                _run(hidden)
        except BaseException as raised:
            error = raised
        _wait_for_turn(spare)
        if error is not None:
            raise error
        if own:
            _run(hidden)
        return
    if record is None or finder is None:
        if hidden is not None:
            _run(hidden)
        return
    new = _ours("vaultlayer_recorder", set(sys.modules)).Recorder
    recorder = new(record)
    try:
        if own:
            finder.recorder = recorder
            _run_recorded(hidden, recorder)
        elif hidden is not None:
            _run(hidden)
    finally:
        os.environ["VAULTLAYER_RUN_IMPORTS"] = record  # for the processes that this one starts
        finder.recorder = None if recorder.stopped else recorder if own else new(record)


_begin()
