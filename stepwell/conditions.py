"""Conditions that a recipe or a command line has in SQL, over the columns of a table.

Belongs here: refusing what is no condition, and saying for which rows one holds. Does not belong here: which rows there
are. The SQL is DuckDB's, as everywhere in `stepwell sql`. It is parsed before it is run: only declared columns,
no subquery, and no function whose value depends on more than its arguments (`random()`, `now()`), as a selection must
come out the same tomorrow. The connection it runs on can reach no file and no setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import duckdb
import orjson
import polars as pl
import pyarrow as pa

from schemas.column import Table
from stepwell.errors import RecipeError

_CONFIG = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": "1"}
_TODAY = ("age", "current_localtime", "current_localtimestamp")
"""Functions that DuckDB calls constant though they may look at the clock."""


class Condition:
    """A SQL condition over the rows of a table; raises RecipeError, naming its `place`, for what is none."""

    def __init__(self, sql: str, table: Table, place: str) -> None:
        self.sql, self.place, self.table = sql, place, table
        self._connection = _connection()
        self.columns = self._columns()
        self.holds(pl.DataFrame(pa.table([pa.nulls(1, f.type) for f in table.schema], table.schema.names)))

    def holds(self, rows: pl.DataFrame) -> pl.Series:
        """Whether it holds for each of these rows, in their order; where it is unknown (null) it does not.

        The rows need `columns` of the table.
        """
        needed = [c for c in self.columns if c in rows.columns]
        at = rows.select(*needed).with_row_index("_at") if needed else rows.select(_at=pl.int_range(pl.len()))
        try:
            self._connection.register("_rows", at.to_arrow())
            kept = self._connection.table("_rows").set_alias(self.table.name).filter(self.sql).project("_at")
            found = kept.to_arrow_table().column(0).to_pylist()
        except duckdb.Error as error:
            raise self._refused(str(error).partition("\n")[0]) from error
        mask = pl.repeat(False, len(rows), eager=True, dtype=pl.Boolean)
        return mask.scatter(found, True) if found else mask

    def _columns(self) -> list[str]:
        asked = "SELECT json_serialize_sql(?)"
        parsed = orjson.loads(self._ask(asked, f"SELECT 1 FROM {self.table.name} WHERE {self.sql}")[0][0])
        if parsed["error"]:
            raise self._refused(parsed["error_message"])
        whole = parsed["statements"]
        # A condition alone leaves the rest of the SELECT as it would be without it.
        plain = orjson.loads(self._ask(asked, f"SELECT 1 FROM {self.table.name} WHERE true")[0][0])["statements"]
        tree = whole[0]["node"].get("where_clause") if len(whole) == 1 else None
        if tree is None or _without_where(whole[0]["node"]) != _without_where(plain[0]["node"]):
            raise self._refused("it is more than one condition")
        names: list[str] = []
        bound = {p for node in _nodes(tree) if node.get("class") == "LAMBDA" for p in _parameters(node)}
        for node in _nodes(tree):
            if node.get("class") in ("SUBQUERY", "STAR"):
                raise self._refused("it holds a subquery" if node["class"] == "SUBQUERY" else "it names no columns")
            if node.get("function_name") in _changing():
                raise self._refused(f"{node['function_name']}() is not the same at every time")
            if node.get("class") == "COLUMN_REF":
                path = node["column_names"]
                name = path[1] if len(path) > 1 and path[0].lower() == self.table.name else path[0]
                if name.lower() not in bound:
                    names.append(self._known(name))
        return sorted(set(names))

    def _known(self, name: str) -> str:
        columns = {str(c).lower(): str(c) for c in self.table.schema.names}
        if name.lower() not in columns:
            raise self._refused(f"there is no column {name!r}")
        return columns[name.lower()]

    def _ask(self, sql: str, *values: str) -> list[Any]:
        return list(self._connection.execute(sql, list(values)).fetchall())

    def _refused(self, why: str) -> RecipeError:
        return RecipeError(
            f"`{self.place}` is {self.sql!r}: {why}. Allowed: one SQL condition (as in `stepwell sql`) over the columns of "
            f"`{self.table.name}`: {', '.join(self.table.schema.names)}."
        )


def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config=_CONFIG)
    connection.execute("SET TimeZone = 'UTC'; SET python_enable_replacements = false")
    return connection.execute("SET enable_external_access = false; SET lock_configuration = true")


@cache
def _changing() -> frozenset[str]:
    """Functions whose value is not decided by their arguments."""
    rows = (
        _connection().execute("SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'").fetchall()
    )
    return frozenset((*(name for (name,) in rows), *_TODAY))


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _parameters(node: dict[str, Any]) -> Iterator[str]:
    for inner in _nodes(node.get("lhs")):
        if inner.get("class") == "COLUMN_REF":
            yield inner["column_names"][0].lower()


def _without_where(node: dict[str, Any]) -> dict[str, Any]:
    """A SELECT without its condition and without positions in the text."""
    return {k: str(v) for k, v in node.items() if k != "where_clause"}
