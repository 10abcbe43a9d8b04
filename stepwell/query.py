"""Questions: SQL asked of the views over a lake at a version, and the `.sql` files that come with Stepwell.

Belongs here: a connection that can only read the lake, refusing what is not a question, limits, running it. Does not
belong here: the views (`stepwell.views`), the questions (`sql/`).
Once the views exist the connection is closed to everything else: no other file, no extension, no change of settings, no
temporary file.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.sqltypes import DuckDBPyType

from schemas.tables import DATASET, TABLES
from stepwell.errors import UnknownName, UsageError
from stepwell.fold import APP, FOLDS
from stepwell.lake import Lake, quoted
from stepwell.views import UPCASTS, VIEWS, make

__all__ = [
    "DATASET", "UPCASTS", "VIEWS", "Limits", "as_of", "columns", "connect", "explain", "folded_from", "question", "questions",
    "run",
]  # fmt: skip

Parameters = Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Limits:
    """What one query may use: seconds (none: no end), memory inside DuckDB as it writes sizes, and rows of its answer."""

    seconds: float | None = None
    memory: str = "4GB"
    rows: int = 10_000_000


DEFAULT = Limits()
_PAUSE = 0.05
_SIZE = re.compile(r"(?i)[0-9]{1,6}(\.[0-9]+)? ?[kmgt]i?b")
_FOREIGN = ("interval", "union", "bit", "bignum", "time with time zone", "variant")
"""Types that Arrow, Parquet or Polars do not have: a column with one in it is given as the text DuckDB writes."""
_NESTED = ("list", "array", "struct", "map")


def connect(
    lake: Lake, versions: Mapping[str, int] | None = None, limits: Limits = DEFAULT
) -> duckdb.DuckDBPyConnection:
    """A connection with a view for every table, `dataset_<recipe>`, and VIEWS; absent tables are empty.

    `versions` pins tables by name (`events`, `datasets/<recipe>`), others are at their current version. Raises
    UsageError for a table or version that is not there, LakeError for a table DuckDB would misread.
    Give SQL written by others to `run` only: a COPY onto a file that a view reads would overwrite it.
    """
    pinned = dict(versions or {})
    names = [*TABLES, *lake.dataset_names()]
    for name, version in pinned.items():
        if name not in names:
            raise UnknownName("table", name, names, "Pin one of these.")
        last = lake.version(name)
        if last is None or not 0 <= version <= last:
            there = "none, as it has no rows yet" if last is None else f"0 to {last}"
            raise UsageError(f"table {name!r} has no version {version}; allowed: {there}. Pin one of these.")
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET temp_directory = ''")
    connection.execute("SET parquet_metadata_cache = true")
    if not _SIZE.fullmatch(limits.memory):  # DuckDB takes a negative number for no limit
        raise UsageError(
            f"memory {limits.memory!r} is no size; allowed: a number up to 999999 with MB or GB. Give for example 4GB."
        )
    try:
        connection.execute(f"SET memory_limit = {quoted(limits.memory)}")
        allowed = make(connection, lake, pinned)
    except duckdb.OutOfMemoryException as error:
        raise UsageError(
            f"memory {limits.memory!r} is too little to open the lake; allowed: more. Give for example 4GB."
        ) from error
    connection.execute("SET python_enable_replacements = false")
    connection.execute(f"SET allowed_paths = [{', '.join(map(quoted, allowed))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def as_of(lake: Lake, version: int) -> dict[str, int]:
    """The versions to pin so that everything is read as of one version of `events`: the folds as they stood then.

    A fold that had not seen that version yet is read as far as it had come: `folded_from` tells.
    """
    pinned = {"events": version}
    for name in FOLDS:
        low, high = -1, -1 if (last := lake.version(name)) is None else last
        while low < high:
            middle = (low + high + 1) // 2
            folded = folded_from(lake, name, middle)
            low, high = (middle, high) if folded is None or folded <= version else (low, middle - 1)
        if low >= 0:
            pinned[name] = low
    return pinned


def folded_from(lake: Lake, name: str, version: int) -> int | None:
    """Version of `events` that a fold at this version of its own was made from."""
    handle = lake.table(name, version)
    return None if handle is None else handle.transaction_version(APP)


def run(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = (), limits: Limits = DEFAULT
) -> pa.Table:
    """The answer to one SELECT; raises UsageError for anything else, SQL that DuckDB refuses, and what passes a limit.

    Columns of one name are `a`, `a_1` and so on.
    An interrupt (SIGINT) ends the query with KeyboardInterrupt; the connection can be asked again.
    """
    ends = None if limits.seconds is None else time.monotonic() + limits.seconds
    with ThreadPoolExecutor(1) as pool:  # this thread looks up often, so that an interrupt is seen wherever it arrives
        answer = pool.submit(_answer, connection, sql, parameters, limits)
        try:
            while not wait([answer], _PAUSE).done:
                if ends is not None and time.monotonic() > ends:
                    raise UsageError(f"stopped after {limits.seconds:g} s; ask for less, or allow more time.")
            return answer.result()
        finally:
            while not answer.done():  # an interrupt before DuckDB has begun is lost
                connection.interrupt()
                wait([answer], _PAUSE)


def explain(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """How DuckDB would answer one SELECT, as JSON; nothing is read."""
    _require_select(connection, sql)
    return str(connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()[0][1])


def _answer(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters, limits: Limits) -> pa.Table:
    try:
        select = _require_select(connection, sql)
        bound = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
        relation = connection.sql(select, params=bound or None)
        names, foreign = _named(relation.columns), [_is_foreign(kind) for kind in relation.types]
        if any(foreign):
            given = (f"CAST(#{i} AS VARCHAR)" if text else f"#{i}" for i, text in enumerate(foreign, 1))
            relation = relation.project(", ".join(given))
        batches, n = [], 0
        with relation.to_arrow_reader(50_000) as reader:
            for batch in reader:
                n += len(batch)
                if n > limits.rows:
                    raise UsageError(f"the answer has more than {limits.rows} rows; add a LIMIT, or count instead.")
                batches.append(batch)
            return pa.Table.from_batches(batches, reader.schema).rename_columns(names)
    except UnicodeDecodeError as error:  # DuckDB cut its message within a letter
        raise UsageError(
            "DuckDB refuses the query for a letter outside ASCII; allowed: such letters in texts and quoted names. Quote it."
        ) from error
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if "Out of Memory" in str(error):
            raise UsageError(
                f"the query needs more than {limits.memory} of memory; ask for less, or allow more."
            ) from error
        raise UsageError(f"{error}\nTables: {', '.join([*TABLES, *VIEWS])}; columns are in docs/schema.md.") from error


def _named(names: Sequence[str]) -> list[str]:
    """The names with a number after each that came before: a name that stands anywhere is not made again."""
    made: dict[str, None] = {}
    taken = set(names)
    for name in names:
        free = name if name not in made else next(n for i in count(1) if (n := f"{name}_{i}") not in taken)
        taken.add(free)
        made[free] = None
    return list(made)


def _is_foreign(kind: DuckDBPyType) -> bool:
    """Whether a type is one of `_FOREIGN` or made of one."""
    parts = [part for _, part in kind.children if isinstance(part, DuckDBPyType)] if kind.id in _NESTED else []
    return kind.id in _FOREIGN or any(map(_is_foreign, parts))


def _require_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    """The SELECT, parsed; raises UsageError for SQL that is none."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(s.type.name for s in statements) or "nothing"
        raise UsageError(f"the query holds {kinds}; allowed: one SELECT. Only `stepwell` writes the lake.")
    return statements[0]


def questions() -> dict[str, str]:
    """Name -> question, from the first line of every `sql/*.sql`, sorted by name."""
    found = {}
    for file in sorted(files("sql").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".sql") and not file.name.startswith("_"):
            first = file.read_text(encoding="utf-8").splitlines()[0]
            if not (first.startswith("-- ") and first.endswith("?")):
                raise UsageError(f"sql/{file.name} starts with {first!r}; the first line must be `-- the question?`.")
            found[file.name.removesuffix(".sql")] = first.removeprefix("-- ")
    return found


def question(name: str) -> str:
    """The SQL of a question; raises UnknownName with the questions there are."""
    if name not in questions():
        raise UnknownName("question", name, questions(), "`stepwell questions` says what each asks.")
    return (files("sql") / f"{name}.sql").read_text(encoding="utf-8")


def columns(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[str, str]]:
    """(name, type) of the columns that one SELECT gives; nothing is read."""
    relation = connection.sql(_require_select(connection, sql))
    return [(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]
