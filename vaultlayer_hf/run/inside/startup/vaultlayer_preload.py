"""A spare interpreter, from inside: it imports what the attempt before had imported, and waits for its turn.

Called by sitecustomize.py, in a process that was started with the very command of an attempt. Python's start
stands still meanwhile: once the turn has come, ``wait_for_turn`` returns, and Python goes on as in any process to read
the script, set up ``__main__``, ``sys.argv`` and ``sys.path``, and run it. Nothing of that is imitated here.

Only modules of the standard library, of site-packages and of this package are imported, never one of the user's own. An
import that changes what can't be taken back (random numbers, signal handlers, the root logger, a GPU that is opened)
ends the spare, and `vl run` starts another that comes to wait before that import.
"""

import gc
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn, Protocol

    from vaultlayer_hf.run.inside.startup.vaultlayer_ahead import Tables
    from vaultlayer_hf.run.inside.startup.vaultlayer_allowed import STANDARD, Allowed
    from vaultlayer_hf.run.inside.startup.vaultlayer_control import Line, value
    from vaultlayer_hf.run.inside.startup.vaultlayer_effects import (
        Output,
        Packages,
        files,
        mark,
        start_method,
        surroundings,
    )
    from vaultlayer_hf.run.inside.startup.vaultlayer_environment import (
        become,
        become_all,
        born_environment,
        changed,
        changed_since_birth,
        own_environment,
    )
    from vaultlayer_hf.run.inside.startup.vaultlayer_finders import Finders
    from vaultlayer_hf.run.inside.startup.vaultlayer_forks import Template
    from vaultlayer_hf.run.inside.startup.vaultlayer_group import Group, Modules, Registration
    from vaultlayer_hf.run.inside.startup.vaultlayer_line import RANK_VARIABLES
    from vaultlayer_hf.run.inside.startup.vaultlayer_logs import Loggers, Logs
    from vaultlayer_hf.run.inside.startup.vaultlayer_looks import be_in_zone, look_like, looks
    from vaultlayer_hf.run.inside.startup.vaultlayer_moments import clocks, kept_moments
    from vaultlayer_hf.run.inside.startup.vaultlayer_reads import Reads, named_in_libraries
    from vaultlayer_hf.run.inside.startup.vaultlayer_stash import Stash

    class KeptExits(Protocol):
        """Keeps what is registered with atexit (sitecustomize.py)."""

        def module(self) -> Any:
            """Return the module atexit that keeps."""

        def taken(self) -> list[Registration]:
            """Return what was kept since the last call."""

        def end(self) -> None:
            """Keep no more."""

else:
    from vaultlayer_ahead import Tables
    from vaultlayer_allowed import STANDARD, Allowed
    from vaultlayer_control import Line, value
    from vaultlayer_effects import Output, Packages, files, mark, start_method, surroundings
    from vaultlayer_environment import (
        become,
        become_all,
        born_environment,
        changed,
        changed_since_birth,
        own_environment,
    )
    from vaultlayer_finders import Finders
    from vaultlayer_forks import Template
    from vaultlayer_group import Group, Modules
    from vaultlayer_line import RANK_VARIABLES
    from vaultlayer_logs import Loggers, Logs
    from vaultlayer_looks import be_in_zone, look_like, looks
    from vaultlayer_moments import clocks, kept_moments
    from vaultlayer_reads import Reads, named_in_libraries
    from vaultlayer_stash import Stash


def wait_for_turn(
    known: "set[str]", exits: "KeptExits", control: int, instructions: int, ranks: str = ""
) -> None:
    """Import what the instructions name, tell `vl run`, and return when this process is to become an attempt.

    With ``ranks`` it never does, but forks ranks (vaultlayer_forks.py), and this returns in each of these.

    Args:
        known: the modules that a script of a cold start finds imported.
        exits: keeps what is registered with atexit.
        control: descriptor of the socket to `vl run`.
        instructions: descriptor of a file with the items of a record (vaultlayer_hf/run/imports.py).
        ranks: path of the socket on which ranks are asked for.
    """
    with open(instructions) as file:
        items = value(file.read())
    for name in [name for name in os.environ if name.startswith("VAULTLAYER_RUN_")]:
        del os.environ[name]
    changes, begin = changed_since_birth(), time.monotonic()
    line = Line(control)
    preloader = _Preloader(known, exits, line, RANK_VARIABLES if ranks else frozenset())
    groups = preloader.run(items)
    marks = {path: mark(path) for group in groups for path in files(group)}
    # What an import has looked for in vain may have been installed since.
    marks.update({folder: mark(folder) for folder in sys.path if "-packages" in folder})
    count = sum(len(one.modules) for one in groups)

    def why_stale() -> str:
        path = next((path for path, had in marks.items() if mark(path) != had), None)
        return "" if path is None else f"{path} has changed"

    if ranks:
        modules = {name: module for group in groups for name, module in group.modules.items()}
        template = Template(ranks, born_environment(), modules)
        line.tell(ready=True, seconds=time.monotonic() - begin, modules=count)
        environment = template.fork(why_stale)
    else:
        gc.collect()
        # A Trainer collects garbage before its first step, which takes 0.3 s with what torch and transformers make at
        # their import, more than all the rest of a restart; nothing of it is garbage. What is frozen isn't looked at.
        # All that shows of it is in gc: as before, get_objects and get_freeze_count apart.
        gc.freeze()
        line.tell(ready=True, seconds=time.monotonic() - begin, modules=count)
        environment = line.receive()["environment"]
        if reason := why_stale():
            line.tell(reason=reason)
            os._exit(0)
        line.tell(gone=True)
    become_all(changed(environment, changes))
    sys.meta_path.insert(1, Stash(groups, preloader.free, ranks))  # behind the hook's
    os.close(control)


class _Preloader:
    """Imports one thing after the other, and keeps what each has changed.

    ``free``: variables that may be others in the script, since no import has read them; at first those that a launcher
    sets, which none may read, then those that the script sets, too.
    """

    def __init__(self, known: "set[str]", exits: "KeptExits", line: "Line", free: "frozenset[str]") -> None:
        self._exits, self._line, self._of_ranks, self.free = exits, line, free, free
        self._reads, self._read, self._logs, self._loggers = Reads(free), set[str](), Logs(), Loggers()
        self._modules = Modules(known)
        self.given = {"atexit": exits.module()}
        self._number, self._tables = 0, Tables()
        self._packages = Packages(list(sys.modules.values()))

    def run(self, items: "Sequence[tuple[str, Any]]") -> "list[Group]":
        """Import all of it; return what came of it, hidden again."""
        environment, path, folder, seen = dict(os.environ), list(sys.path), os.getcwd(), looks()
        wanted, zone = dict(environment), seen["zone"]
        # By imports: a random id of this process, say, and not that of the attempt.
        made: dict[str, str | None] = {}
        groups: list[Group] = []
        guard = Allowed(self, {what for kind, what in items if kind == "x"})
        sys.meta_path.insert(1, guard)
        output = Output()
        of_script = {what[0] for kind, what in items if kind == "e"}
        self._reads = Reads(self._of_ranks | of_script)
        rests = any(kind == "t" for kind, _ in items)
        if "logging" in sys.modules:
            self._logs.watch(sys.modules["logging"])
        self._loggers.changes()  # those of Python's start stay as they are
        try:
            for self._number, (kind, what) in enumerate(items):
                if kind == "e":
                    name, value = what
                    if made.get(name, ...) == value:
                        del made[name]  # no draw: what the script makes of it from here on counts
                    if value is None:
                        wanted.pop(name, None)
                    else:
                        wanted[name] = value
                elif kind == "p":
                    sys.path[:] = what
                elif kind == "d":
                    os.chdir(what)
                elif kind == "l":
                    look_like(what)
                    zone = what["zone"]
                elif kind == "i" and guard.is_to_be_imported(what):
                    both = {**wanted, **made}
                    become({name: value for name, value in both.items() if value is not None})
                    be_in_zone(zone)
                    begin = time.monotonic()
                    groups.append(self._import(what, output, guard))
                    if rests:
                        self._line.rest(2 * (time.monotonic() - begin))
                    made.update(groups[-1].changed)
        finally:
            output.end()
            self._exits.end()
            self._logs.end()
        sys.path[:] = path
        os.chdir(folder)
        look_like(seen)
        become(environment)
        be_in_zone(seen["zone"])
        of_script -= self._read | {name for group in groups for name in group.changed}
        self.free = self._of_ranks | (of_script - named_in_libraries(of_script))
        sys.meta_path.remove(guard)
        self._modules.hide(groups)
        return groups

    def loads_logging(self, module: "Any") -> None:
        """Keep what is logged from here on."""
        self._logs.watch(module)

    def cut(self, reason: str) -> "NoReturn":
        """End here, and have the next spare wait before the import that is under way."""
        self._line.tell(cut=self._number, reason=reason)
        os._exit(0)

    def _import(self, name: str, output: "Output", guard: "Allowed") -> Group:
        group = Group(name, own_environment())
        before, finders, begin = surroundings(), Finders(), clocks()
        method = start_method()
        settled = getattr(method, "_actual_context", None)
        import warnings  # where nobody has yet, it appears with this group

        filters = list(warnings.filters)

        def note(message: "Any", category: "Any", filename: str, lineno: int, *_: "Any") -> None:
            had = list(sys.modules.items())
            module = next((one for one, it in had if getattr(it, "__file__", None) == filename), "")
            group.warned.append((message, category, filename, lineno, module))

        usual: Any = warnings.showwarning
        warnings.showwarning = note  # type: ignore[assignment]
        self._reads.begin()
        try:
            __import__(name)
            self._tables.make()
        except Exception:
            # As the import does in the script, which has gone on then; a table that can't be made is made when needed.
            pass
        read = self._reads.end()
        if warnings.showwarning is not note:
            self.cut(f"{name} redirects warnings")
        warnings.showwarning = usual
        after = surroundings()
        for what in before:
            if after.get(what) != before[what]:
                self.cut(f"{name} changes {what}")
        now = own_environment()
        group.changed = {
            key: now.get(key)
            for key in {*now, *group.environment}
            if now.get(key) != group.environment.get(key)
        }
        self._modules.note(group)
        group.attributes = self._packages.new(group.modules.values())
        read |= self._reads.kept(group.modules.values())
        self._read |= read
        if read & self._of_ranks:
            self.cut(f"{name} reads {', '.join(sorted(read & self._of_ranks))}")
        group.standard = all(
            file.startswith(STANDARD) and "-packages" + os.sep not in file for file in files(group)
        )
        self._keep_filters(group, filters)
        group.moments = kept_moments(group.modules.values(), begin, clocks())
        group.finders, group.loggers = finders.new(), self._loggers.changes()
        group.missing, guard.missed = guard.missed, set()
        if method is not None and settled is None and method._actual_context is not None:
            group.settles, method._actual_context = method, None
        group.exits = self._exits.taken()
        group.said, group.logged = output.taken(), self._logs.taken()
        return group

    def _keep_filters(self, group: Group, before: "list[Any]") -> None:
        now, count = list(sys.modules["warnings"].filters), len(before)
        front = next((at for at in range(len(now) - count + 1) if now[at : at + count] == before), None)
        if front is None:
            self.cut(f"{group.name} takes filters of warnings away")
        group.filters_front, group.filters_back = now[:front], now[front + count :]
        # They stay in force here, so that later imports warn as they would; taken back with the rest.
