"""File changes, read out of what an agent typed, the same for every harness.

Belongs here: saying which files a command writes, deletes or restores and what text it adds. Does not belong here: reading
the command line (`shell`), judging any of it (`leaks`). Nothing raises, and no pattern backtracks over more than one quoted
word: commands are hostile text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from stepwell.critics.shell import Command, commands, normal, script
from stepwell.critics.turns import Turn

_EMPTIES = re.compile(r"(echo|printf|:|true|truncate)$")
_DELETED = re.compile(
    r"""\b(?:remove|unlink|rmtree)\(\s*['"]([^'"\n]+)['"] | Path\(\s*['"]([^'"\n]+)['"]\s*\)\.unlink""", re.VERBOSE
)
_SED = re.compile(r"^[^a-zA-Z]*s([^\w\s\\])((?:\\.|(?!\1).)*)\1((?:\\.|(?!\1).)*)\1", re.DOTALL)
_SED_DELETE = re.compile(r"^([\d,$!\s]|/(?:\\.|[^/\\])*/)*d$")
_SED_TEXT = re.compile(r"^(?:[\d,$!\s]|/(?:\\.|[^/\\])*/)*([aic])\\?\s*(.*)$", re.DOTALL)
_WRITTEN = re.compile(
    r"""\bopen\(\s*['"]([^'"\n]+)['"]\s*,\s*(?:mode=)?['"](?:[wa]|r\+) | Path\(\s*['"]([^'"\n]+)['"]\s*\)\.write_text""",
    re.VERBOSE,
)
_WRITES = re.compile(r"""\bopen\([^)]*,\s*(?:mode=)?['"](?:[wa]|r\+)|\.write_text\(""")
_LITERAL_PATH = re.compile(r"""['"]([\w.~/-]+\.\w{1,5})['"]""")
_PATCH = re.compile(r"^(?:\+\+\+ (?:b/)?(\S+)|\*\*\* (Update|Add|Delete) File: (.+))$", re.MULTILINE)
_WINDOW = re.compile(r"^(edit|insert)\b(?:[ \t]+(?:\d+:\d+)?([^\n]*))?\n(.*?)(?:\n?end_of_edit)?\s*$", re.DOTALL)
_KEYS = dict.fromkeys(("old_str", "old_string", "oldText"), "--old_str")
_KEYS |= dict.fromkeys(("new_str", "new_string", "newText"), "--new_str")
_KEYS |= dict.fromkeys(("file_text", "content"), "--file_text")
_EDITOR = re.compile(r"^str_replace(_based_edit_tool|_editor)?$")


@dataclass(frozen=True)
class Change:
    """One file changed, with the text added and removed.

    `kind` is `create` (written whole), `append`, `replace`, `rewrite` (by a script, which is the text), `delete` or
    `restore`.
    """

    path: str
    kind: str
    added: str = ""
    removed: str = ""


def same(one: str, other: str) -> bool:
    """Whether two normal paths can be the same file: equal, or one ends in the other, folder included."""
    short, long = sorted((one, other), key=len)
    return short == long or ("/" in short and long.endswith("/" + short.lstrip("/")))


def history(turns: Sequence[Turn]) -> Iterator[tuple[Turn, list[Command], list[Change]]]:
    """Each turn with its simple commands and the changes it made; a change that failed is none."""
    opened = ""
    for turn in turns:
        text = turn.command or ""
        parsed = [] if turn.malformed or turn.is_submit else _tool(text) or commands(text)
        first = parsed[0] if parsed else Command(())
        window = None if turn.malformed else _WINDOW.match(text)
        if first.program in ("open", "create") and first.paths:
            opened = first.paths[0]
        if turn.edit_failed or (turn.exit_code not in (None, 0) and not turn.is_test):
            yield turn, parsed, []
        elif window and not (first.program == "edit" and len(first.args) == 2):
            path = normal(window[2] or "") or opened
            yield turn, [], [Change(path, "append" if window[1] == "insert" else "replace", window[3])]
        else:
            yield turn, parsed, [replace(c, path=c.path or opened) for one in parsed for c in _changes(one)]


def _tool(text: str) -> list[Command]:
    """A tool call written as JSON, as the words of the editor command it stands for."""
    if not text.lstrip().startswith("{"):
        return []
    try:
        call: Any = json.loads(text)
    except ValueError:
        return []
    if not isinstance(call, dict):
        return []
    path = call.get("path") or call.get("file_path")
    if isinstance(path, str):
        verb = call.get("command")
        words = [w for k, value in call.items() if isinstance(value, str) and k in _KEYS for w in (_KEYS[k], value)]
        guess = "create" if "--file_text" in words else "str_replace" if words else "view"
        return [Command(("str_replace_editor", verb if isinstance(verb, str) else guess, path, *words))]
    command = call.get("command") or call.get("cmd")
    return commands(command) if isinstance(command, str) else []


def _changes(command: Command) -> Iterator[Change]:
    program, args, paths = command.program, command.args, command.paths
    for path, append in command.writes:
        said = command.body or (" ".join(args) if program in ("echo", "printf") else "")
        emptied = not (said or append) and (_EMPTIES.match(program) or not program)
        yield Change(path, "delete" if emptied else "append" if append else "create", said)
    if program == "tee":
        for path in paths:
            yield Change(path, "append" if "-a" in args else "create", command.body or "")
    elif program in ("sed", "perl") and any(re.match(r"-\w*i|--in-place", a) for a in args):
        yield from _in_place([a for a in args if not a.startswith("-")])
    elif program in ("ed", "ex"):
        yield from (Change(path, "replace", command.body or "") for path in paths[-1:])
    elif program in ("rm", "unlink", "truncate"):
        yield from (Change(path, "delete") for path in paths)
    elif program in ("mv", "cp") and len(paths) > 1:
        if program == "mv":
            yield from (Change(path, "delete") for path in paths[:-1])
        yield Change(paths[-1], "create")
    elif program == "git":
        yield from _git(args)
    elif _EDITOR.match(program) and len(args) > 1:
        given = {a.lstrip("-"): b for a, b in pairwise(args[2:]) if a.startswith("--")}
        kinds = {"create": "create", "str_replace": "replace", "insert": "append"}
        if args[0] in kinds:
            added = given.get("file_text") or given.get("new_str") or ""
            yield Change(normal(args[1]), kinds[args[0]], added, given.get("old_str", ""))
    elif program == "edit" and len(args) == 2:
        yield Change("", "replace", args[1], args[0])
    elif program == "sub" and len(args) == 3:
        yield Change("", "replace", args[2], args[1])
    elif program == "create" and len(paths) == 1:
        yield Change(paths[0], "create")
    yield from _patched(" ".join(args) if program == "apply_patch" and command.body is None else command.body or "")
    yield from _scripted(script(command))


def _in_place(words: Sequence[str]) -> Iterator[Change]:
    """The files of `sed -i SCRIPT FILE...`; the script is the first word that is not a file suffix."""
    if len(words) < 2:
        return
    text, files = words[0], words[1:]
    swap, put = _SED.match(text), _SED_TEXT.match(text)
    for path in files:
        if swap:
            yield Change(normal(path), "replace", swap[3], swap[2])
        elif _SED_DELETE.match(text):
            yield Change(normal(path), "replace", "", text)
        elif put:
            yield Change(normal(path), "replace" if put[1] == "c" else "append", put[2])
        else:
            yield Change(normal(path), "replace", text)


def _git(args: Sequence[str]) -> Iterator[Change]:
    verb, rest = (args[0], args[1:]) if args else ("", ())
    paths = [normal(a) for a in rest if not a.startswith("-")]
    if verb == "rm":
        yield from (Change(path, "delete") for path in paths)
    elif verb == "mv" and len(paths) > 1:
        yield from (Change(path, "delete") for path in paths[:-1])
    elif verb in ("checkout", "restore"):
        yield from (Change(path, "restore") for path in paths)
    elif (verb == "stash" and (not paths or paths[0] in ("push", "save"))) or (verb == "reset" and "--hard" in rest):
        yield Change(".", "restore")


def _patched(text: str) -> Iterator[Change]:
    """The files of a unified diff or of an `apply_patch` text."""
    heads = list(_PATCH.finditer(text))
    starts = [*(h.start() for h in heads[1:]), len(text)]
    for head, until in zip(heads, starts, strict=False):
        hunk = text[head.end() : until].splitlines()
        path = normal(head[1] or head[3])
        added, removed = ("\n".join(x[1:] for x in hunk if x.startswith(sign)) for sign in "+-")
        if head[2] == "Delete":
            yield Change(path, "delete")
        else:
            kind = "create" if head[2] == "Add" else "replace" if removed.strip("-\n") else "append"
            yield Change(path, kind, added, removed)


def _scripted(text: str) -> Iterator[Change]:
    """The files a Python script opens for writing; where it opens a variable, the only file it names."""
    direct = {m[1] or m[2] for m in _WRITTEN.finditer(text)}
    if not direct and _WRITES.search(text):
        named = set(_LITERAL_PATH.findall(text))
        direct = named if len(named) == 1 else set()
    for path in sorted(direct):
        yield Change(normal(path), "rewrite", text)
    for gone in _DELETED.finditer(text):
        yield Change(normal(gone[1] or gone[2]), "delete")
