"""Questions: DuckDB views over the tables of a lake at a version, and the `.sql` files asked of them.

Belongs here: making views, refusing what is not a question, running it. Does not belong here: the questions (`sql/`).
On a local lake a view reads exactly the Parquet files of one version with an explicit schema, so projections and
filters reach the files; on an object store it goes through a pyarrow dataset. Once the views exist the connection is
closed to everything else: no other file, no extension, no change of settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from schemas.column import Column, Table
from schemas.events import ENVELOPE
from schemas.kinds import KINDS
from schemas.tables import DATASET, TABLES
from schemas.upcast import UPCASTERS
from stepwell.errors import LakeError, UnknownName, UsageError
from stepwell.lake import Lake

Parameters = Sequence[Any] | Mapping[str, Any]
_ENVELOPE = {c.name: c for c in ENVELOPE}
_NOT_FLAT = ("kind", "batch_id", "schema_version", "usage", "extra")
_OF_EVENT = tuple(c.name for c in ENVELOPE if c.name not in _NOT_FLAT)
_UNSAFE = ("deletionVectors", "columnMapping")
UPCASTS: dict[tuple[str, int], dict[str, str]] = {
    ("observation", 1): {"raw": "observation.text", "rendered": "observation.text"},
}
"""What `schemas.upcast` does, said in SQL: (kind, version) -> the expression of every field it sets."""


def _flat(name: str, kind: str, doc: str) -> Table:
    columns = (*(_ENVELOPE[c] for c in _OF_EVENT), *KINDS[kind].columns)
    if kind == "verdict":
        columns += (Column("categories", pa.list_(pa.string()), "Category ids of the detections, in their order."),)
    return Table(name, doc, columns, ("event_id",))


VIEWS: dict[str, Table] = {
    "verdicts": _flat(
        "verdicts", "verdict", "Verdicts that hold: events of that kind, flattened, without retracted ones."
    ),
    "masks": _flat("masks", "mask", "Masks that hold: events of that kind, flattened, without retracted ones."),
    "outcomes": _flat(
        "outcomes", "outcome", "Gradings that hold: events of that kind, flattened, without retracted ones."
    ),
    "datasets": Table("datasets", "The training rows of all datasets together.", DATASET.columns, ("recipe", "row_id")),
}
"""Views made of the tables; their columns are declared like those of tables."""


def connect(lake: Lake, versions: Mapping[str, int] | None = None) -> duckdb.DuckDBPyConnection:
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
    allowed: list[str] = []
    for name in names:
        handle = lake.table(name, pinned.get(name))
        allowed += _view(connection, lake, name, handle)
    for view in VIEWS.values():
        if view.name != "datasets":
            connection.execute(_flattened(view))
    connection.execute(f"CREATE VIEW datasets AS {_all_datasets(names)}")
    connection.execute((files("sql") / "_macros.sql").read_text(encoding="utf-8"))
    connection.execute("SET python_enable_replacements = false")
    connection.execute(f"SET allowed_paths = [{', '.join(map(_quoted, allowed))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def run(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = ()) -> pa.Table:
    """The answer to one SELECT; raises UsageError for anything else and for SQL that DuckDB refuses."""
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            kinds = ", ".join(s.type.name for s in statements) or "nothing"
            raise UsageError(f"the query holds {kinds}; allowed: one SELECT. Only `stepwell` writes the lake.")
        bound = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
        return connection.sql(sql, params=bound or None).to_arrow_table()
    except duckdb.Error as error:
        raise UsageError(f"{error}\nTables: {', '.join([*TABLES, *VIEWS])}; columns are in docs/schema.md.") from error


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


def _view(connection: duckdb.DuckDBPyConnection, lake: Lake, name: str, handle: DeltaTable | None) -> list[str]:
    """Make one view; returns the files it reads."""
    spec = DATASET if name.startswith("datasets/") else TABLES[name]
    view = _name(name.replace("datasets/", "dataset_", 1))
    if handle is not None:
        _refuse(name, handle)
        lake.require_whole(handle)
    paths = [] if handle is None else handle.file_uris()
    if handle is None or not paths:
        connection.execute(f"CREATE VIEW {view} AS {_empty(spec)}")
        return []
    stored = pa.schema(handle.schema().to_arrow())
    columns = ", ".join(_column(c, stored) for c in spec.columns)
    if not lake.local:
        connection.register(f"_{name}", lake.dataset(handle))
        connection.execute(f"CREATE VIEW {view} AS SELECT {columns} FROM {_name('_' + name)}")
        return []
    partitions = list(spec.partition_by)
    inside = [f for f in stored if f.name not in partitions]
    parts: dict[tuple[str, ...], list[str]] = {}
    for path in paths:
        segments = path.split("/")[-1 - len(partitions) : -1] if partitions else []
        values = tuple(unquote(s.partition("=")[2]) for s in segments)
        parts.setdefault(values, []).append(path)
    selects = []
    for values, group in sorted(parts.items()):
        constants = "".join(f"{_quoted(v)} AS {_name(p)}, " for p, v in zip(partitions, values, strict=True))
        types = ", ".join(f"{_quoted(f.name)}: {_declared(f)}" for f in inside)
        source = f"[{', '.join(map(_quoted, group))}], hive_partitioning = false, schema = MAP {{{types}}}"
        selects.append(f"SELECT {constants}* FROM read_parquet({source})")
    connection.execute(f"CREATE VIEW {view} AS SELECT {columns} FROM ({' UNION ALL BY NAME '.join(selects)})")
    return paths


def _empty(spec: Table) -> str:
    return f"SELECT {', '.join(f'NULL::{_type(c.type)} AS {_name(c.name)}' for c in spec.columns)} WHERE false"


def _all_datasets(names: Sequence[str]) -> str:
    views = [_name(n.replace("datasets/", "dataset_", 1)) for n in names if n.startswith("datasets/")]
    return " UNION ALL ".join([_empty(DATASET), *(f"SELECT * FROM {view}" for view in views)])


def _declared(field: pa.Field) -> str:
    return f"{{name: {_quoted(field.name)}, type: {_quoted(_type(field.type))}, default_value: NULL}}"


def _refuse(name: str, handle: DeltaTable) -> None:
    protocol, configuration = handle.protocol(), handle.metadata().configuration
    features = {*(protocol.reader_features or []), *(protocol.writer_features or [])}
    wrong = sorted(features & set(_UNSAFE))
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        wrong.append(f"columnMapping mode {configuration['delta.columnMapping.mode']!r}")
    if wrong:
        raise LakeError(
            f"table {name!r} uses {', '.join(wrong)}; allowed: neither {' nor '.join(_UNSAFE)}, as the view would "
            "give wrong rows. Rewrite the table without."
        )


def _column(column: Column, stored: pa.Schema) -> str:
    """The select item that gives a stored column its declared name, type and current payload version."""
    name = _name(column.name)
    if column.name not in stored.names:
        return f"NULL::{_type(column.type)} AS {name}"
    old = stored.field(column.name).type
    if not pa.types.is_struct(column.type) or old == column.type:
        return name
    have = {old.field(i).name for i in range(old.num_fields)}
    items = []
    for child in (column.type.field(i) for i in range(column.type.num_fields)):
        value = f"{name}.{_name(child.name)}" if child.name in have else f"NULL::{_type(child.type)}"
        for (kind, version), fields in UPCASTS.items():
            if kind == column.name and child.name in fields:
                value = f"CASE WHEN schema_version = {version} THEN {fields[child.name]} ELSE {value} END"
        items.append(f"{_name(child.name)} := {value}")
    return f"CASE WHEN {name} IS NULL THEN NULL ELSE struct_pack({', '.join(items)}) END AS {name}"


def _flattened(view: Table) -> str:
    kind = view.name.removesuffix("s")
    fields = ", ".join(f"{kind}.{_name(c.name)}" for c in KINDS[kind].columns)
    extra = ", list_transform(verdict.detections, lambda d: d.category) AS categories" if kind == "verdict" else ""
    envelope = ", ".join(f"e.{c}" for c in _OF_EVENT)
    retractions = "FROM events WHERE kind = 'retraction' AND retraction.target_event IS"
    return (
        f"CREATE VIEW {view.name} AS SELECT {envelope}, {fields}{extra} FROM events e WHERE e.kind = '{kind}' "
        f"AND e.event_id NOT IN (SELECT retraction.target_event {retractions} NOT NULL) "
        f"AND e.trajectory_id NOT IN (SELECT trajectory_id {retractions} NULL)"
    )


def _type(arrow: pa.DataType) -> str:
    if pa.types.is_struct(arrow):
        return f"STRUCT({', '.join(f'{_name(f.name)} {_type(f.type)}' for f in arrow)})"
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        return f"{_type(arrow.value_type)}[]"
    if pa.types.is_timestamp(arrow):
        return "TIMESTAMPTZ" if arrow.tz else "TIMESTAMP"
    text, binary = ("string", "large_string", "string_view"), ("binary", "large_binary", "binary_view")
    known = dict.fromkeys(text, "VARCHAR") | dict.fromkeys(binary, "BLOB")
    known |= {"bool": "BOOLEAN", "int32": "INTEGER", "int64": "BIGINT", "double": "DOUBLE"}
    return known[str(arrow)]


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


assert UPCASTS.keys() == UPCASTERS.keys(), "every upcaster needs its SQL in UPCASTS"
