"""Shell commands and file changes, read out of what an agent typed, the same for every harness.

Belongs here: splitting a command line into simple commands, and saying which files it writes, deletes or restores and
what text it adds. Does not belong here: judging any of it (`leaks`). Nothing is executed and nothing raises: what cannot
be read as shell yields no commands. Commands are hostile text, so only the first `_MOST` characters are looked at and no
pattern backtracks over more than one quoted word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from stepwell.critics.turns import Turn

_MOST = 50_000
_HEREDOC = re.compile(r"<<-?[ \t]*(['\"]?)(\w+)\1([^\n]*)\n(.*?)(?:\n[ \t]*\2(?=\W|$)|\Z)", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<op>\n|&&|\|\||<<<|<<-?|\d?>>|\d?>&\d?|&>|\d?>|[;&|()<])
      |(?P<word>(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s;&|()<>'"\\])+)
      |['"\\]""",
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)""", re.DOTALL)
_ENDS = ("\n", "&&", "||", ";", "|", "&", "(", ")")
_BEFORE = re.compile(
    r"(sudo|env|command|exec|time|nohup|then|do|else|timeout|xargs|!|\w+=.*|-\w+|\d+[smh]?)$", re.DOTALL
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
class Command:
    """One simple command: its words without quotes, `>`/`>>` targets, what it reads from a here-document, `|` before it."""

    words: tuple[str, ...]
    writes: tuple[tuple[str, bool], ...] = ()
    body: str | None = None

    @property
    def program(self) -> str:
        """Name of the program without its folder."""
        return self.words[0].rpartition("/")[2] if self.words else ""

    @property
    def args(self) -> tuple[str, ...]:
        """What follows the program."""
        return self.words[1:]

    @property
    def paths(self) -> list[str]:
        """Arguments that are not options."""
        return [normal(w) for w in self.args if not w.startswith("-")]


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


def normal(path: str) -> str:
    """A path without `./` and without the folder a harness checks the repository out to."""
    path = re.sub(r"^(\./)+", "", path.strip())
    return re.sub(r"^/(testbed|repo|app|workspace/[^/]+|home/[^/]+/[^/]+)/", "", path)


def same(one: str, other: str) -> bool:
    """Whether two normal paths can be the same file: equal, or one ends in the other, folder included."""
    short, long = sorted((one, other), key=len)
    return short == long or ("/" in short and long.endswith("/" + short.lstrip("/")))


def commands(line: str) -> list[Command]:
    """The simple commands of a shell line, in order."""
    text = line[:_MOST].replace("\\\n", " ")
    bodies = [m[4] for m in _HEREDOC.finditer(text)]
    text = _HEREDOC.sub(r"<<\1\2\1\3", text)
    found: list[Command] = []
    words: list[str] = []
    writes: list[tuple[str, bool]] = []
    body: str | None = None
    pending = ""
    comment = False
    for token in [*_TOKEN.finditer(text), None]:
        op = token["op"] if token else "\n"
        if op in _ENDS:
            piped = op == "|"
            if words or writes:
                found.append(Command(tuple(_program(words)), tuple(writes), body))
            words, writes, pending = [], [], ""
            body = body if piped else None
            comment = comment and op != "\n"
        elif comment or token is None:
            continue
        elif op:
            pending = op
            if op.startswith("<<") and op != "<<<":
                body = bodies.pop(0) if bodies else None
        elif token["word"]:
            word = token["word"]
            if word.startswith("#"):
                comment = True
            elif pending:
                if pending.endswith(">") and not pending.startswith("2") and not word.startswith("/dev/"):
                    writes.append((normal(_unquoted(word)), pending.endswith(">>")))
                pending = ""
            else:
                words.append(_unquoted(word))
    return found


def _unquoted(word: str) -> str:
    return _QUOTED.sub(lambda m: next(g for g in m.groups() if g is not None), word)


def _program(words: Sequence[str]) -> Sequence[str]:
    """The words from the program on, without assignments and wrappers such as `timeout 5`."""
    start = 0
    while start < len(words) - 1 and _BEFORE.match(words[start]) and not (start == 0 and words[0].startswith("-")):
        start += 1
    return words[start:]


def script(command: Command) -> str:
    """The program text a command runs or writes: a here-document, or the argument of `-c`/`-e`."""
    if command.body is not None:
        return command.body
    words = command.words
    return next((words[i + 1] for i, w in enumerate(words[:-1]) if w in ("-c", "-e") and command.program != "sed"), "")


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
        said = " ".join(args) if program in ("echo", "printf") else ""
        yield Change(path, "append" if append else "create", command.body or said)
    if program == "tee":
        for path in paths:
            yield Change(path, "append" if "-a" in args else "create", command.body or "")
    elif program in ("sed", "perl") and any(re.match(r"-\w*i|--in-place", a) for a in args):
        yield from _in_place([a for a in args if not a.startswith("-")])
    elif program in ("rm", "unlink"):
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
