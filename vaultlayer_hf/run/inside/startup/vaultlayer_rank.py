"""What a launcher starts in the place of Python: it has a rank forked by a process that has the imports done already.

torchrun and `accelerate launch` start each rank with the Python that they are told, which is this program then
(sitecustomize.py tells them). It asks the process that waits (vaultlayer_forks.py) for a rank with its own arguments,
environment, working directory and stdin, stdout and stderr. The launcher watches this process, so it lives as long as
the rank does, passes signals on and ends as the rank has ended. Whatever doesn't go right means a cold start: this
process becomes the real Python, as it would have been without.

Started with -I and -S: nothing but what is built into Python, and 20 ms.

    it to the template    {"environment", "surroundings"}, with three descriptors
    the answer            {"ready": pid}, or {"cold": reason}
    it to the guard       {"go": True}, then {"signal": number} for each
    the guard             {"ended": status} as of waitpid
"""

import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from vaultlayer_hf.run.inside.startup.vaultlayer_line import receive, send, surroundings
else:
    sys.path.insert(0, os.path.dirname(__file__))
    from vaultlayer_line import receive, send, surroundings

FOLDER_VARIABLE = "VAULTLAYER_RUN_RANKS"
"""Names the private folder that holds this program as ``python`` and the template's ``socket``."""
PYTHON_VARIABLE = "VAULTLAYER_RUN_PYTHON"
"""The Python that the launcher would have started."""
_IMPORTS = "VAULTLAYER_RUN_IMPORTS"
_ATTEMPT = "VAULTLAYER_RUN_ATTEMPT"
_PATIENCE = 10.0
"""Seconds that a fork may take: a cold start would take about as long."""
_NOT_PASSED_ON = {
    "SIGKILL",
    "SIGSTOP",
    "SIGCHLD",
    "SIGCONT",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGSEGV",
    "SIGBUS",
    "SIGFPE",
    "SIGILL",
    "SIGTRAP",
    "SIGSYS",
    "SIGPIPE",
    "SIGXFSZ",
}


def main() -> "NoReturn":
    """Be a rank's stand-in, or become the real Python."""
    environment = dict(os.environ)
    folder, python = environment.pop(FOLDER_VARIABLE), environment.pop(PYTHON_VARIABLE)
    command = [python, *sys.argv[1:]]
    try:
        connection = _ask(folder, command, environment)
    except Exception as error:
        if not isinstance(error, (FileNotFoundError, ConnectionRefusedError)):  # nobody waits
            _say(environment, f"{type(error).__name__}: {error}")
        connection = None
    if connection is not None:
        _stand_in(connection)
    _become_python(command, environment)


def _ask(folder: str, command: "list[str]", environment: "dict[str, str]") -> "socket.socket | None":
    """Have a rank forked; return the line to its guard, or None."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_PATIENCE)
    connection.connect(f"{folder}/socket")
    seen = surroundings()
    born = {
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "oom": _text("/proc/self/oom_score_adj"),
    }
    descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
    connection.sendmsg([b"F"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    send(connection, command=command, environment=environment, surroundings=seen, born=born)
    answer = receive(connection) or {"cold": "the process that waits has ended"}
    if "cold" in answer:
        _say(environment, answer["cold"])
        return None
    for name in sorted(signal.valid_signals()):
        if (
            getattr(name, "name", f"real time {name}") not in _NOT_PASSED_ON
            and signal.getsignal(name) != signal.SIG_IGN
        ):
            signal.signal(name, lambda number, _: _pass_on(connection, number))
    send(connection, go=True)
    connection.settimeout(None)
    return connection


def _pass_on(connection: socket.socket, number: int) -> None:
    try:
        send(connection, signal=number)
    except OSError:
        pass  # the guard is gone, which is found out elsewhere


def _stand_in(connection: socket.socket) -> "NoReturn":
    """Wait for the rank's end, and end in the same way."""
    try:
        ended = receive(connection)
    except OSError:
        ended = None
    status = ended["ended"] if ended is not None else signal.SIGKILL  # its guard is gone, and took it along
    if not os.WIFSIGNALED(status):
        os._exit(os.WEXITSTATUS(status))
    import resource

    # The rank has left one.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    number = os.WTERMSIG(status)
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _become_python(command: "list[str]", environment: "dict[str, str]") -> "NoReturn":
    """Be what the launcher would have started."""
    if environment.get("LOCAL_RANK", "0") != "0":
        environment.pop(_IMPORTS, None)  # one rank's are enough
    elif _IMPORTS in environment:
        _note(environment[_IMPORTS], command, {**environment})
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and subprocess doesn't
        signal.signal(number, signal.SIG_DFL)
    os.execve(command[0], command, environment)


def _note(path: str, command: "list[str]", environment: "dict[str, str]") -> None:
    """Note how a rank is started (vaultlayer_hf/run/imports.py)."""
    environment.pop(_IMPORTS)
    what = {
        "command": command,
        "environment": environment,
        "cwd": os.getcwd(),
        "surroundings": surroundings(),
    }
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, f"{os.getpid()}\tr\t{what!a}\n".encode())
        finally:
            os.close(file)
    except OSError:
        pass  # nobody asks for it


def _say(environment: "dict[str, str]", reason: str) -> None:
    """Note why this rank starts cold."""
    import json
    import time

    line = {"time": time.time(), "kind": "cold", "reason": reason, "pid": os.getpid()}
    try:
        with open(f"{environment[_ATTEMPT]}/rank-{environment.get('RANK', '0')}.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
    except (KeyError, OSError):
        pass


def _text(path: str) -> str:
    with open(path) as file:
        return file.read()


if __name__ == "__main__":
    main()
