"""What a rank's stand-in (vaultlayer_rank.py) and the process that forks ranks (vaultlayer_forks.py) talk about."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RANK_VARIABLES = frozenset(
    {
        "RANK",
        "LOCAL_RANK",
        "GROUP_RANK",
        "ROLE_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_RESTART_COUNT",
        "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_ERROR_FILE",
        "TORCHELASTIC_USE_AGENT_STORE",
    }
)
"""What a launcher sets anew for each rank or each start. No import that is done beforehand has read any of it."""


def surroundings() -> "dict[str, Any]":
    """Return what a process is born with beside its environment, and must be the same for a warm rank."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").partition(":")[::2] for line in file)
    with open("/proc/self/limits") as file:
        limits = file.read()
    with open("/proc/self/cgroup") as file:
        cgroup = file.read()
    names = (
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "SigBlk",
        "SigIgn",
        "Cpus_allowed",
        "NoNewPrivs",
        "Seccomp",
        "CapEff",
    )
    return {
        "the working directory": os.getcwd(),
        **{name: status.get(name) for name in names},
        "limits": limits,
        "the cgroup": cgroup,
        "the kinds of stdin, stdout and stderr": [os.fstat(number).st_mode & 0o170000 for number in range(3)],
    }


def send(connection: "Any", **fields: "Any") -> None:
    """Send one message: a Python literal on a line."""
    connection.sendall(ascii(fields).encode() + b"\n")


def receive(connection: "Any", most: int = 1) -> "dict[str, Any] | None":
    """Return the next message; None where the other end is closed.

    ``most``: bytes at a time; above 1 only where the other end waits for an answer, so that nothing comes behind it.
    """
    data = b""
    while not data.endswith(b"\n"):
        got = connection.recv(most)
        if not got:
            return None
        data += got
    found: dict[str, Any] = eval(data, {"__builtins__": {}})
    return found
