"""What a program has printed of its own end: tracebacks, a launcher's summary, its last line. Pure."""

from __future__ import annotations

import re

from vaultlayer_hf.run.decide.cause import LAUNCHERS_ERROR, Error
from vaultlayer_hf.run.symptoms import means_full, means_memory, means_not_empty

_EXIT = re.compile(r"exitcode\s*:\s*(-?\d+)")  # torchrun's summary of a worker's end
_TRACE = re.compile(r"^(?:\[rank(\d+)\]:)?\s?Traceback \(most recent call last\):\n", re.MULTILINE)
_RAISED = re.compile(
    r"^(?:\[rank\d+\]:)?\s?([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Full)\w*)(?:: (.*))?$"
)


def printed_exit_codes(output: str) -> list[int]:
    """Return the exit codes of workers in torchrun's summary; minus a signal's number where one ended a worker."""
    return [int(text) for text in _EXIT.findall(output)]


def last_line(output: str) -> str:
    """Return the last line that isn't blank; empty where there is none."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")


def last_traceback(output: str) -> Error | None:
    """Return the last exception whose traceback stands in a program's output; None where there is none.

    Of a launcher that only says how its process has ended, and of that process's own, it is the latter.
    """
    found = [error for begin in _TRACE.finditer(output) if (error := _raised(begin, output[begin.end() :]))]
    own = [error for error in found if not error.type.endswith(LAUNCHERS_ERROR)]
    return next(reversed(own or found), None)


def _raised(begin: re.Match[str], text: str) -> Error | None:
    """Return the exception at the end of a traceback."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        raised = _RAISED.match(line)
        if raised:
            name, message = raised[1], raised[2] or ""
            text = begin[0] + "\n".join(lines[: number + 1]) + "\n"
            return Error(
                int(begin[1] or 0),
                name,
                message,
                text,
                means_memory(name, message),
                means_full(name, message),
                means_not_empty(name, message),
            )
    return None
