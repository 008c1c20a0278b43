"""The template: a process that has the imports of a rank done, and forks a rank for whoever asks.

Like any spare (vaultlayer_preload.py) it was started with the very command of a rank, and stands still within Python's
start. What it forks goes on from there: Python reads the script, as in a cold start. So nothing of a rank's start is
imitated but what a process has from its parent: environment, session, stdin, stdout and stderr, priority.

    template (child of `vl run`)    forks a guard for each rank, and never becomes a rank itself
        guard                       parent of one rank: passes on signals, tells how the rank ends. Nothing depends on
            rank                    the template any more: it may be ended when memory runs short

The rank dies with its guard, the guard kills the rank when the stand-in (vaultlayer_rank.py) dies. A rank goes on only
once the stand-in has said so: one that has lost patience has started another.

A fork copies the calling thread alone. So a template with other threads refuses, but for those that a library stops
itself before a fork (OpenBLAS does).
"""

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

    from vaultlayer_hf.run.inside.startup.vaultlayer_environment import is_own_variable
    from vaultlayer_hf.run.inside.startup.vaultlayer_line import RANK_VARIABLES, receive, send, surroundings
else:
    from vaultlayer_environment import is_own_variable
    from vaultlayer_line import RANK_VARIABLES, receive, send, surroundings

_PATIENCE = 5.0
"""Seconds that the other end of a line may take for what is only a line long."""
_FORKED_WELL = frozenset({"jemalloc_bg_thd"})
"""Threads whose library sees to forks itself. jemalloc (in pyarrow) does without the thread in the child, and returns
memory while it allocates."""
_KILL, _DEATH_SIGNAL = 9, 1  # SIGKILL; <sys/prctl.h>


class Template:
    """Listens for those who want a rank.

    Args:
        path: of the socket, in a folder that is private.
        environment: that this process was started with.
        modules: what was imported beforehand, by name.

    Raises RuntimeError or OSError where this process can't be forked rightly.
    """

    def __init__(self, path: str, environment: "Mapping[str, str]", modules: "Mapping[str, Any]") -> None:
        if not all(name in modules for name in ("socket", "ctypes")):
            raise RuntimeError("the program imports neither torch nor what talks to other ranks")
        os.close(os.pidfd_open(os.getpid()))
        # Those of the script's own imports: others would be seen in sys.modules.
        self._socket, self._ctypes = modules["socket"], modules["ctypes"]
        self._modules = modules
        self._pids = [
            (namespace, name)
            for namespace in [getattr(module, "__dict__", {}) for module in modules.values()]
            for name, value in list(namespace.items())
            if type(value) is int and value == os.getpid() and "pid" in name.lower()
        ]
        self._environment = _compared(environment)
        self._command = sys.orig_argv
        self._surroundings = surroundings()
        self._refuse_threads()
        gc.collect()
        # It stays so in ranks: a collection (accelerate does one before each training) would write to every object, and
        # so copy all of this process's memory, for each rank. All that shows of it is in gc: what is frozen isn't in
        # get_objects().
        gc.freeze()
        self._listener = self._socket.socket(self._socket.AF_UNIX)
        if os.path.exists(path):
            os.unlink(path)  # of a template before this one
        self._listener.bind(path)
        self._listener.listen(64)

    def fork(self, changed: "Callable[[], str]") -> "dict[str, str]":
        """Serve until this returns, which it does in a rank alone: with its environment.

        ``changed`` tells why no rank can be forked now; nothing where it can.
        """
        while True:
            connection, _ = self._listener.accept()
            connection.settimeout(_PATIENCE)
            descriptors: list[int] = []
            try:
                descriptors = self._descriptors(connection)
                request = receive(connection, 65536) or {}
                reason = changed() or self._differs(request)
                if reason:
                    send(connection, cold=reason)
                else:
                    environment = self._fork(connection, descriptors, request)
                    if environment is not None:
                        return environment
            except OSError:
                pass  # whoever asked is gone, and if not, it is told so by the end of the line
            finally:
                connection.close()
                for descriptor in descriptors:
                    os.close(descriptor)

    def _refuse_threads(self) -> None:
        child = os.fork()  # a library that can be forked with its threads has stopped them now
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        names = [_text(f"/proc/self/task/{number}/comm").strip() for number in os.listdir("/proc/self/task")]
        names = sorted(name for name in names if name not in _FORKED_WELL)
        if len(names) > 1:
            raise RuntimeError(
                f"what is imported has started threads, which a fork would lose: {', '.join(names)}"
            )

    def _differs(self, request: "Mapping[str, Any]") -> str:
        """Return in what a rank's cold start would differ from this process's; nothing where in nothing."""
        if request["command"] != self._command:
            return "it is started with other arguments than before"
        wanted = _compared(request["environment"])
        names = {
            name for name in {*wanted, *self._environment} if wanted.get(name) != self._environment.get(name)
        }
        if names:
            return f"the environment has changed: {', '.join(sorted(names))}"
        seen = request["surroundings"]
        return ", ".join(
            f"{name} differs" for name in self._surroundings if seen.get(name) != self._surroundings[name]
        )

    def _fork(
        self, connection: "Any", descriptors: "list[int]", request: "Mapping[str, Any]"
    ) -> "dict[str, str] | None":
        """Return its environment, in a rank; None in the template."""
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return None
        try:
            if os.fork():
                os._exit(0)  # so that the guard is `vl run`'s to collect, and nobody's here
            self._listener.close()
            os.setsid()
            try:
                _set_born(request["born"])
            except OSError as error:
                send(connection, cold=f"its priority can't be had: {error}")
                os._exit(0)
            readable, writable = os.pipe(), os.pipe()
            rank = os.fork()
            if rank:
                _guard(rank, connection, descriptors, readable, writable)
            os.close(readable[0])
            os.close(writable[1])
            return self._be_rank(connection, descriptors, request, readable[1], writable[0])
        except BaseException:
            os._exit(1)

    def _be_rank(
        self, connection: "Any", descriptors: "list[int]", request: "Mapping[str, Any]", out: int, back: int
    ) -> "dict[str, str]":
        guard = os.getppid()
        connection.close()
        os.setsid()
        self._ctypes.CDLL(None).prctl(_DEATH_SIGNAL, _KILL, 0, 0, 0)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        descriptors.clear()
        reason = self._renew()
        os.write(out, ascii({"cold": reason} if reason else {"ready": os.getpid()}).encode() + b"\n")
        os.close(out)
        if os.read(back, 1) != b"g" or os.getppid() != guard:
            os._exit(0)
        os.close(back)
        environment: dict[str, str] = request["environment"]
        return environment

    def _descriptors(self, connection: "Any") -> "list[int]":
        """Return the three descriptors that come first. Raises OSError where they don't."""
        _, ancillary, _, _ = connection.recvmsg(1, 1024)
        found: list[int] = []
        for level, kind, data in ancillary:
            if (level, kind) == (self._socket.SOL_SOCKET, self._socket.SCM_RIGHTS):
                found += [
                    int.from_bytes(data[at : at + 4], sys.byteorder) for at in range(0, len(data) - 3, 4)
                ]
        if len(found) != 3:
            for descriptor in found:
                os.close(descriptor)
            raise OSError("no descriptors came")
        return found

    def _renew(self) -> str:
        """Make anew what a cold start would have of its own; return why that can't be."""
        found = self._modules.get
        for name in ("torch.cuda", "torch.xpu"):
            bad = getattr(found(name), "_is_in_bad_fork", None)
            if bad is not None and bad():
                return f"{name} was in use before"
        for namespace, name in self._pids:
            namespace[name] = os.getpid()
        if (threading := found("threading")) is not None:
            threading.main_thread()._set_native_id()
        if (numpy := found("numpy.random")) is not None:
            numpy.seed()  # from the system, as at its import; random does so itself at a fork
        if (process := found("multiprocessing.process")) is not None:
            process.current_process().authkey = os.urandom(32)
        return ""


def _guard(
    rank: int,
    connection: "Any",
    descriptors: "list[int]",
    readable: "tuple[int, int]",
    writable: "tuple[int, int]",
) -> "NoReturn":
    """Be the parent of a rank until both it and what stands in for it have ended."""
    import select

    for descriptor in (*descriptors, readable[1], writable[0]):
        os.close(descriptor)
    with open("/proc/self/comm", "w") as file:
        file.write("vl-guard")
    answer = b""
    while not answer.endswith(b"\n"):
        got = os.read(readable[0], 4096)
        if not got:
            os._exit(1)
        answer += got
    connection.settimeout(None)
    connection.sendall(answer)
    if receive(connection) != {"go": True}:  # told that it is cold, or lost patience
        os._exit(0)
    os.write(writable[1], b"g")
    ended = os.pidfd_open(rank)
    data = b""
    while True:
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            _, status = os.waitpid(rank, 0)
            send(connection, ended=status)
            os._exit(0)
        got = connection.recv(4096)
        if not got:
            _signal(rank, _KILL)
            os.waitpid(rank, 0)
            os._exit(0)
        *lines, data = (data + got).split(b"\n")
        for line in lines:
            _signal(rank, eval(line, {"__builtins__": {}})["signal"])


def _signal(rank: int, number: int) -> None:
    """Send a signal as torchrun does: to the rank's process group, which its data loaders' workers are in, too."""
    try:
        os.killpg(rank, number)
    except OSError:
        pass


def _set_born(born: "Mapping[str, Any]") -> None:
    """Have the priority and the kernel's score of whom this process stands for; raises OSError."""
    if os.getpriority(os.PRIO_PROCESS, 0) != born["nice"]:
        os.setpriority(os.PRIO_PROCESS, 0, born["nice"])
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(born["oom"])


def _text(path: str) -> str:
    with open(path) as file:
        return file.read()


def _compared(environment: "Mapping[str, str]") -> "dict[str, str]":
    """Return the variables that must be the same."""
    return {
        name: value
        for name, value in environment.items()
        if name not in RANK_VARIABLES and not is_own_variable(name)
    }
