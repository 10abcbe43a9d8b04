"""The SQL shell: statements over several lines, completion, history, and commands that begin with a dot.

Belongs here: reading lines and what dot commands mean. Does not belong here: what SQL may do (`stepwell.query`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise, takewhile
from pathlib import Path

import duckdb
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output

from schemas.choices import CHOICES
from schemas.tables import DATASET, TABLES
from stepwell import query
from stepwell.cli.answers import Format, format_of, show
from stepwell.cli.common import console, output
from stepwell.display import plain
from stepwell.errors import StepwellError, UnknownName
from stepwell.views import VIEWS, identifier

HISTORY = Path.home() / ".stepwell_sql_history"
_WORDS = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "ORDER",
    "LIMIT",
    "JOIN",
    "LEFT",
    "USING",
    "ON",
    "AS",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "IS",
    "IN",
    "DISTINCT",
    "COUNT",
    "SUM",
    "AVG",
    "FILTER",
    "WITH",
    "HAVING",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "BETWEEN",
    "LIKE",
    "UNION",
    "ALL",
    "DESC",
    "ASC",
    "QUALIFY",
]
_HELP = """.tables            the tables and views
.schema NAME       the columns of one
.questions         the questions that come with Stepwell
.ask NAME          ask one of them
.format FORMAT     table, json, csv or markdown
.output FILE       write the next answer to a file
.quit              leave (also: control-D)
A statement ends with a semicolon; control-C stops a query, or clears what was typed."""


class Shell:
    """A loop over one read-only connection; errors are printed, an interrupt stops the query and not the shell."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, limits: query.Limits, shape: Format = Format.table
    ) -> None:
        self.connection, self.limits, self.shape = connection, limits, shape
        self.to: Path | None = None
        rows = connection.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
        self.columns = sorted({column for _, column in rows})
        self.names = sorted({table for table, _ in rows if not table.startswith("_")})

    def run(self, history: History | None = None, typed: Input | None = None, shown: Output | None = None) -> None:
        """Read until the end: prompts on a terminal, else whatever standard input holds; raises when any of that fails."""
        if typed is None and not sys.stdin.isatty():
            went = [self.take(text) for text in takewhile(_goes_on, _statements(sys.stdin.read()))]
            if not all(went):
                raise StepwellError(f"{went.count(False)} of {len(went)} statements failed; their messages are above.")
            return
        session: PromptSession[str] = PromptSession(
            "stepwell> ", multiline=True, completer=Words(self), history=history or FileHistory(str(HISTORY)),
            key_bindings=_keys(), prompt_continuation="      ... ", complete_while_typing=False, input=typed, output=shown,
        )  # fmt: skip
        while True:
            try:
                text = session.prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if not _goes_on(text):
                return
            self.take(text)

    def take(self, text: str) -> bool:
        """Do what one line or statement says; what goes wrong is printed. Returns whether it went well."""
        text = text.strip()
        try:
            if text.startswith("."):
                self._command(*text.split(maxsplit=1))
            elif not _is_empty(text):
                self._ask(text)
            return True
        except KeyboardInterrupt:
            console.print("stopped", highlight=False)
        except StepwellError as error:
            console.print(plain(str(error)), style="red", highlight=False, markup=False, soft_wrap=True)
        return False

    def _ask(self, text: str) -> None:
        to, self.to = self.to, None
        shape = self.shape if to is None else format_of(None, to)
        show(query.run(self.connection, text, limits=self.limits), shape, to)

    def _command(self, name: str, rest: str = "") -> None:
        rest = rest.strip()
        match name:
            case ".tables":
                for known in self.names:
                    of_recipe = CHOICES if known.startswith("choices_") else DATASET
                    spec = TABLES.get(known) or VIEWS.get(known) or of_recipe
                    output.print(f"{known:<20} {spec.doc}", markup=False)
            case ".schema":
                if rest not in self.names:
                    raise UnknownName("table", rest, self.names, "`.schema NAME` shows one.")
                self._ask(f"SELECT column_name, column_type FROM (DESCRIBE {identifier(rest)})")
            case ".questions":
                for known, question in query.questions().items():
                    output.print(f"{known:<24} {question}", markup=False, highlight=False)
            case ".ask":
                self._ask(query.question(rest))
            case ".format":
                if rest not in ("table", "json", "csv", "markdown"):
                    raise UnknownName(
                        "format", rest, ("table", "json", "csv", "markdown"), "`.output FILE` writes files."
                    )
                self.shape = Format(rest)
            case ".output":
                format_of(None, Path(rest))
                self.to = Path(rest)
            case ".help":
                output.print(_HELP, markup=False, highlight=False)
            case _:
                raise UnknownName(
                    "command", name, (line.split()[0] for line in _HELP.splitlines()[:-1]), "`.help` explains."
                )


class Words(Completer):
    """Completion of keywords, tables, columns, questions and dot commands."""

    def __init__(self, shell: Shell) -> None:
        commands = [line.split()[0] for line in _HELP.splitlines()[:-1]]
        self.commands, self.questions = commands, list(query.questions())
        self.names, self.words = shell.names, [*shell.names, *shell.columns, *_WORDS]

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What the word before the cursor may become."""
        line, word = document.text_before_cursor.lstrip(), document.get_word_before_cursor(WORD=True)
        word = word.replace("(", ",").rpartition(",")[2]
        if line.startswith(".ask "):
            known = self.questions
        elif line.startswith(".schema "):
            known = self.names
        else:
            known = self.commands if line.startswith(".") else self.words
        for each in known:
            if word and each.lower().startswith(word.lower()):
                yield Completion(each, -len(word))


def _keys() -> KeyBindings:
    """Enter ends what is complete: a dot command, or text that ends with a semicolon; else it starts a line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        text = buffer.text.strip()
        if text.startswith(".") or _is_empty(_cut(text)[-1]):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return keys


def _goes_on(text: str) -> bool:
    return text.strip() not in (".quit", ".exit")


def _statements(text: str) -> Iterator[str]:
    """Dot commands and statements of a text; those without anything but comments are left out."""
    held = ""
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith(".") and _is_empty(held):
            yield line
            continue
        held += line
        if ";" in line:
            *whole, held = _cut(held)
            yield from (each for each in whole if not _is_empty(each))
    if not _is_empty(held):
        yield held


def _cut(text: str) -> list[str]:
    """The statements of a text, each to its semicolon, and what comes after the last."""
    said = text.encode()
    ends = [
        at + 1 for at, kind in duckdb.tokenize(text) if kind == duckdb.token_type.operator and said[at : at + 1] == b";"
    ]
    return [said[a:b].decode() for a, b in pairwise([0, *ends, len(said)])]


def _is_empty(text: str) -> bool:
    """Whether there is nothing in a text but semicolons and comments."""
    try:
        return not duckdb.extract_statements(text)
    except duckdb.Error:
        return False
