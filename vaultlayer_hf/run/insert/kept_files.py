"""Files that a loop writes and the script reads behind it, such as the best weights: they go with the checkpoint."""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import sources_of
from vaultlayer_hf.run.insert.defined_before import defined_before
from vaultlayer_hf.run.insert.draws import in_use
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.pieces import places
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk

_WRITES = re.compile(r"(?:^torch|(?:^|\.)accelerator|(?:^|\.)xm)\.save$|(?:^|\.)(?:save_file|save_model)$")
READS = re.compile(r"^torch\.load$|(?:^|\.)(?:load_file|load_model)$")
_COPIES = re.compile(r"^shutil\.(?:copyfile|copy|copy2|move)$|^os\.(?:rename|replace)$")
_PURE = re.compile(r"os\.path\.\w+|(?:pathlib\.)?Path|str|os\.fspath|int")


def kept_files(script: Script, loop: Loop, walk: Walk) -> list[str]:
    """Return the code of the paths of files that a loop writes, and that are read behind it.

    ``walk``: of the loop. Raises UnclearError for one whose path isn't known ahead of the loop.
    """
    written = written_paths(script, loop)
    if not written:
        return []
    unknown = not all(plain for _, plain in written)
    found: list[str] = []
    for call in _reads_behind(script, loop, in_use(script, loop)):
        node = _opened(script, call.args[0].value)
        code = script.code(node)
        is_written = any(code == one for one, _ in written)
        if not is_written and not unknown:
            continue
        known = next((one for one in _ways(script, node) if _is_known(script, loop, walk, one)), None)
        if known is not None:
            found.append(script.code(known))
        elif is_written:
            raise UnclearError(
                f"line {script.line(call)} loads after the loop what the loop has written to {code}, a file that "
                "isn't in the vault: keep it in a variable"
            )
    return list(dict.fromkeys(found))


def written_paths(script: Script, loop: Loop) -> list[tuple[str, bool]]:
    """Return the code of the paths of files that a loop writes, and whether it means the same elsewhere."""
    found: list[tuple[str, bool]] = []
    for part in in_use(script, loop):
        for call in script.all(cst.Call, part):
            path, given = script.path(call.func), places(call)
            if len(given) > 1 and (_WRITES.search(path) or _COPIES.search(path)):
                code = script.code(_opened(script, given[1].value))
                found.append((code, _is_plain(script, call, code)))
    return found


def _opened(script: Script, node: Any) -> Any:
    """Return the path of a file that is given as what ``with open(path) as file`` has opened; else the node itself."""
    for one in script.around(node) if dotted(node) else ():
        for item in one.items if isinstance(one, cst.With) else ():
            opens = isinstance(item.item, cst.Call) and script.path(item.item.func) in ("open", "io.open")
            if item.asname is not None and dotted(item.asname.name) == dotted(node) and opens:
                return item.item.args[0].value
    return node


def _ways(script: Script, node: Any) -> list[Any]:
    """Return the expressions that a path may be worked out by: its name, and the one that it is assigned."""
    sources = sources_of(script, dotted(node)) if dotted(node) else []
    return [node, *sources] if len(sources) == 1 else [node]


def _is_plain(script: Script, call: Any, code: str) -> bool:
    """Tell whether what a path is called where it is written is what it is called elsewhere."""
    home = next((one for one in script.around(call) if isinstance(one, cst.FunctionDef)), None)
    names = set(re.findall(r"[A-Za-z_]\w*", re.sub(r"(\"[^\"]*\"|'[^']*')", "", code)))
    return home is None or not names & (parameters_of(home) | {"self"})


def _reads_behind(script: Script, loop: Loop, used: list[Any]) -> list[Any]:
    """Return the calls behind a loop that read a file."""
    end = script.span(loop.top)[1]
    functions = {one.name.value: one for one in script.all(cst.FunctionDef)}
    parts: list[Any] = []
    node = loop.top
    calls = list(loop.calls[loop.crossed :])
    while node is not None:  # the statements behind it, in its function, and behind the one call of that
        up = script.parent(node)
        body = getattr(up, "body", ())
        if isinstance(body, (list, tuple)) and any(one is node for one in body):
            parts += body[next(number for number, one in enumerate(body) if one is node) + 1 :]
        if isinstance(up, cst.FunctionDef):
            name = up.name.value
            places_of = [call for call in script.all(cst.Call) if _last(call) == name]
            up = places_of[0] if len(places_of) == 1 and places_of[0] not in calls else None
        node = up
    coming = [one for one in parts if not isinstance(one, (cst.FunctionDef, cst.ClassDef))]
    seen = list(coming)
    while coming:
        for call in script.all(cst.Call, coming.pop()):
            function = functions.get(_last(call))
            known = any(function is one for one in [*seen, *used])
            if function is not None and not known:
                seen.append(function)
                coming.append(function)
    found = [call for part in seen for call in script.all(cst.Call, part)]
    found += [
        call
        for call in script.all(cst.Call)
        if script.span(call)[0] > end
        and not any(any(up is part for up in script.around(call)) for part in used)
    ]
    reads = [call for call in found if READS.search(script.path(call.func)) and call.args]
    return list(dict.fromkeys(reads))


def _last(call: Any) -> str:
    return dotted(call.func).rsplit(".", 1)[-1]


def _is_known(script: Script, loop: Loop, walk: Walk, node: Any) -> bool:
    """Tell whether a path can be worked out ahead of the loop, and is the same behind it."""
    if not all(_is_pure(script, call) for call in script.all(cst.Call, node)):
        return False
    needed = Walk(script, follow=False)
    needed.expression(node)
    defined = defined_before(script, loop.top) | {"str", "int"}
    roots = {name.partition(".")[0] for name in needed.read_first}
    return roots <= defined and not set(needed.read_first) & set(walk.written)


def _is_pure(script: Script, call: Any) -> bool:
    if isinstance(call.func, cst.Attribute) and call.func.attr.value in ("format", "join", "with_suffix"):
        return True
    return bool(_PURE.fullmatch(script.path(call.func)))
