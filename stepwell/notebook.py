"""A lake for notebooks and scripts: `stepwell.open(uri)`, whose answers are Polars frames.

Belongs here: asking, in the shapes that people look at. Does not belong here: anything that writes (the command line and the
functions behind it do). What comes back shows itself as text, on a terminal through rich, and as HTML in a notebook.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.tree import Tree as RichTree

from schemas.kinds import KINDS
from stepwell import query
from stepwell.errors import UnknownName
from stepwell.health.status import history, tables
from stepwell.lake import Lake
from stepwell.lineage import Tree, impact, render_trace, trace
from stepwell.lineage.picture import picture
from stepwell.log import EventLog, live

Column = tuple[str, Any]
_NAMED = 10
_WHEN = pl.Datetime("ms", "UTC")


class Lineage:
    """What a thing was made from, or what it has touched: `frame` has a row a node, `tree` the whole of it."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    @property
    def frame(self) -> pl.DataFrame:
        """One row a node, depth first: `depth`, `kind`, `name` and `facts` (a JSON object)."""
        schema = {"depth": pl.Int32, "kind": pl.String, "name": pl.String, "facts": pl.String}
        return pl.DataFrame(list(_nodes(self.tree, 0)), schema=schema, orient="row")

    def __rich__(self) -> RichTree:
        return render_trace(self.tree)

    def __repr__(self) -> str:
        console = Console(width=120, color_system=None)
        with console.capture() as shown:
            console.print(render_trace(self.tree))
        return shown.get().rstrip()

    def _repr_html_(self) -> str:
        return f'<div style="overflow: auto">{picture(self.tree)}</div>'


class OpenLake:
    """A lake to look at; every call reads it as it is then. Frames are in a stated order, so that they can be compared."""

    def __init__(self, uri: str = "", storage_options: dict[str, str] | None = None) -> None:
        self.lake = Lake(uri or os.environ.get("STEPWELL_LAKE") or "lake", storage_options)

    def trajectories(self, corpus: str | None = None) -> pl.DataFrame:
        """`trajectories`, of one corpus or of all, by id; columns are in docs/schema.md."""
        return self._table("trajectories", ["trajectory_id"], "corpus", corpus)

    def steps(self, trajectory: str | None = None) -> pl.DataFrame:
        """`steps`, of one trajectory or of all, by trajectory and step."""
        return self._table("steps", ["trajectory_id", "step"], "trajectory_id", trajectory)

    def events(
        self, trajectory: str | None = None, kind: str | None = None, version: int | None = None
    ) -> pl.DataFrame:
        """What is in the log at a version (default: now), in the order of the log; what was retracted is left out.

        Give a trajectory or a kind where the log is large: the answer is held in memory. Columns of kinds are structs.
        """
        if kind is not None and kind not in KINDS:
            raise UnknownName("event kind", kind, KINDS, "Name one of these.")
        ids, kinds = None if trajectory is None else [trajectory], None if kind is None else [kind, "retraction"]
        rows = self._known(
            "trajectory_id", trajectory, EventLog(self.lake).read(version, trajectory_ids=ids, kinds=kinds)
        )
        held = live(rows)
        return _frame(held if kind is None else held.filter(pc.equal(held.column("kind"), kind)))

    def sql(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> pl.DataFrame:
        """The answer to one SELECT over tables and views (docs/sql.md); raises UsageError for anything else."""
        connection = query.connect(self.lake)
        try:
            return _frame(query.run(connection, statement, parameters))
        finally:
            connection.close()

    def question(self, name: str) -> pl.DataFrame:
        """The answer to a question that comes with Stepwell; `stepwell questions` lists them."""
        return self.sql(query.question(name))

    def dataset(self, name: str, version: int | None = None) -> pl.DataFrame:
        """Training rows of a recipe's dataset at a version (default: its current one), by row id."""
        known = [table.removeprefix("datasets/") for table in self.lake.dataset_names()]
        if name.removeprefix("datasets/") not in known:
            raise UnknownName("dataset", name, known, "stepwell build RECIPE makes one.")
        rows = self.lake.read(f"datasets/{name.removeprefix('datasets/')}", version)
        return _frame(rows).sort("row_id")

    def trace(self, name: str) -> Lineage:
        """What a model, dataset (NAME or NAME@VERSION), row, event or trajectory was made from."""
        return Lineage(trace(self.lake, name))

    def impact(self, name: str, kind: str | None = None) -> Lineage:
        """What a trajectory, event, task, repository, corpus, source or model has touched."""
        return Lineage(impact(self.lake, name, kind))

    def versions(self, table: str = "events") -> pl.DataFrame:
        """Versions of a table, the newest first: when written, by which operation, and what the commit says (JSON)."""
        rows = [{**row, "said": orjson.dumps(row["said"]).decode()} for row in history(self.lake, table)]
        kinds: list[Column] = [
            ("version", pl.Int64),
            ("written_at", _WHEN),
            ("operation", pl.String),
            ("said", pl.String),
        ]
        return pl.DataFrame(rows, schema=kinds)

    def tables(self) -> pl.DataFrame:
        """The tables of the lake with version, rows, files, bytes, and how far each is behind `events`."""
        counts = ("rows", "version", "files", "bytes", "seen", "behind")
        kinds: list[Column] = [("table", pl.String), *((name, pl.Int64) for name in counts), ("written_at", _WHEN)]
        return pl.DataFrame(tables(self.lake), schema=kinds)

    def __repr__(self) -> str:
        rows = [f"  {row['table']:<24} {row['rows']:>12,} rows" for row in self._there()]
        return "\n".join([f"Lake at {self.lake.uri}", *rows])

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{escape(row['table'])}</td><td>{row['version']}</td><td>{row['rows']:,}</td></tr>"
            for row in self._there()
        )
        head = "<thead><tr><th>table</th><th>version</th><th>rows</th></tr></thead>"
        return f"<b>Lake at {escape(self.lake.uri)}</b><table>{head}<tbody>{cells}</tbody></table>"

    def _there(self) -> list[dict[str, Any]]:
        return [row for row in tables(self.lake) if row["version"] is not None]

    def _table(self, name: str, order: list[str], column: str, value: str | None) -> pl.DataFrame:
        wanted = None if value is None else pc.field(column) == value
        return _frame(self._known(column, value, self.lake.read(name, filters=wanted))).sort(order)

    def _known(self, column: str, value: str | None, rows: pa.Table) -> pa.Table:
        """The rows asked for by a value; raises UnknownName where there are none because the log does not have it."""
        if (
            value is None
            or len(rows)
            or len(self.lake.read("events", columns=[column], filters=pc.field(column) == value))
        ):
            return rows
        names = {*self.lake.read("trajectories", columns=[column]).column(0).to_pylist()}
        act = f"At most {_NAMED} are named; `.trajectories()` has them all."
        raise UnknownName(column.removesuffix("_id"), value, sorted(names)[:_NAMED], act)


def _frame(rows: pa.Table) -> pl.DataFrame:
    made = pl.from_arrow(rows)
    assert isinstance(made, pl.DataFrame)
    return made


def _nodes(tree: Tree, depth: int) -> list[tuple[int, str, str, str]]:
    facts = orjson.dumps(tree.facts, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    below = [node for child in tree.children for node in _nodes(child, depth + 1)]
    return [(depth, tree.kind, tree.name, facts), *below]
