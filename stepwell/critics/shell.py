"""Shell commands as an agent typed them, split into simple commands; nothing is executed and nothing raises.

Belongs here: words, here-documents, redirections, and the scripts that a shell is given. Does not belong here: which files
a command changes (`edits`). What cannot be read as shell yields no commands. Commands are hostile text, so only the first
`_MOST` characters are looked at and no pattern backtracks over more than one quoted word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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
_SHELL = re.compile(r"(ba|da|z)?sh$|eval$")


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


def normal(path: str) -> str:
    """A path without `./` and without the folder a harness checks the repository out to."""
    path = re.sub(r"^(\./)+", "", path.strip())
    return re.sub(r"^/(testbed|repo|app|workspace/[^/]+|home/[^/]+/[^/]+)/", "", path)


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
                command = Command(tuple(_program(words)), tuple(writes), body)
                found += [command, *(commands(script(command)) if _SHELL.match(command.program) else ())]
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
