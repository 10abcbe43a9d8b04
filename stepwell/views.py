"""Views: the tables of a lake as DuckDB sees them, and one flat view a kind of event.

Belongs here: the SQL that makes views, with their columns declared like those of tables. Does not belong here: opening a
connection and asking (`stepwell.query`), questions (`sql/`).
On a local lake a view reads exactly the Parquet files of one version with an explicit schema, so projections and
filters reach the files; on an object store it goes through a pyarrow dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from schemas.choices import CHOICES
from schemas.column import Column, Table, required
from schemas.events import ENVELOPE, EVENTS
from schemas.kinds import KINDS
from schemas.payloads import USAGE
from schemas.tables import DATASET, TABLES
from schemas.upcast import UPCASTERS
from stepwell.errors import LakeError
from stepwell.lake import Lake, quoted
from stepwell.scanning import file_name, paths_of

_ENVELOPE = {c.name: c for c in ENVELOPE}
_NOT_FLAT = ("kind", "batch_id", "schema_version", "usage", "extra")
_OF_EVENT = tuple(c.name for c in ENVELOPE if c.name not in _NOT_FLAT)
_OF_CALL = ("event_id", "corpus", "trajectory_id", "step", "kind", "actor", "policy", "recorded_at")
_FEW = 16
"""Files that DuckDB may look at itself when it plans a query: tables that are small, or have been compacted."""
_UNSAFE = ("deletionVectors", "columnMapping")
UPCASTS: dict[tuple[str, int], dict[str, str]] = {
    ("observation", 1): {"raw": "observation.text", "rendered": "observation.text"},
}
"""What `schemas.upcast` does, said in SQL: (kind, version) -> the expression of every field it sets."""
_CATEGORIES = Column("categories", pa.list_(pa.string()), "Category ids of the detections, in their order.")


def _flat(kind: str) -> Table:
    columns = (*(_ENVELOPE[c] for c in _OF_EVENT), *KINDS[kind].columns)
    doc = f"{KINDS[kind].doc} Events of kind `{kind}` that hold, flattened, without retracted ones."
    return Table(f"{kind}s", doc, columns + ((_CATEGORIES,) if kind == "verdict" else ()), ("event_id",))


FLAT: dict[str, str] = {f"{kind}s": kind for kind in KINDS if kind != "retraction"}
"""View -> the kind of event it flattens: every kind but retractions, which the views have carried out."""
_THING = "`model`, `base_model`, `dataset`, `row`, `trajectory`, `event`, `source`, `task`, `repo`, `evaluation`, `comparison`"
VIEWS: dict[str, Table] = {
    **{name: _flat(kind) for name, kind in FLAT.items()},
    "calls": Table(
        "calls",
        "Model calls that hold: one row an event that a model call produced, whatever its kind, with what it used.",
        (*(_ENVELOPE[c] for c in _OF_CALL), *USAGE),
        ("event_id",),
    ),
    "datasets": Table("datasets", "The training rows of all datasets together.", DATASET.columns, ("recipe", "row_id")),
    "choices": Table(
        "choices",
        "What every dataset made of every trajectory of its corpora: kept, or left out and why.",
        (required("recipe", pa.string(), "Recipe of the dataset."), *CHOICES.columns),
        ("recipe", "trajectory_id"),
    ),
    "dataset_versions": Table(
        "dataset_versions",
        "The version of every dataset that this connection reads.",
        (required("dataset", pa.string(), "Table of the dataset."), required("version", pa.int64(), "Version read.")),
        ("dataset",),
    ),
    "lineage_edges": Table(
        "lineage_edges",
        "What was made from what, one step at a time: rows of datasets as far as the versions read go.",
        (
            required("kind", pa.string(), f"What was made: {_THING}."),
            required(
                "id", pa.string(), "Which one; a dataset is written TABLE@VERSION, its rows TABLE@VERSION#ROW_ID."
            ),
            required("relation", pa.string(), "How it comes from the other."),
            required("from_kind", pa.string(), "What it was made from."),
            required("from_id", pa.string(), "Which one."),
        ),
        ("kind", "id", "relation", "from_kind", "from_id"),
    ),
    "lineage_nodes": Table(
        "lineage_nodes",
        "Everything that is at one end of a lineage edge.",
        (required("kind", pa.string(), f"{_THING}."), required("id", pa.string(), "Which one.")),
        ("kind", "id"),
    ),
}
"""Views made of the tables; their columns are declared like those of tables."""


def make(connection: duckdb.DuckDBPyConnection, lake: Lake, versions: Mapping[str, int]) -> list[str]:
    """Make the views of every table, of every dataset (`dataset_<recipe>`) and VIEWS; returns the files they read."""
    allowed: list[str] = []
    read: dict[str, int] = {}
    handles = {name: lake.table(name, versions.get(name)) for name in [*TABLES, *lake.dataset_names()]}
    events = handles["events"]
    there = _all_there(events) if events is not None and lake.local else None
    whole = events is not None and bool(there) and len(events.file_uris()) <= _FEW
    for name, handle in handles.items():
        # DuckDB keeps the smaller side of a join in memory, so it must know the rows of both or of neither.
        allowed += _view(connection, lake, name, handle, name == "trajectories" and not whole)
        if handle is not None and name.startswith("datasets/"):
            read[name] = handle.version()
            chosen = name.replace("datasets/", "choices/", 1)
            allowed += _view(connection, lake, chosen, lake.table(chosen))
    connection.execute(f"CREATE TABLE _retracted AS {_RETRACTED}")
    holds = _HOLDS if connection.execute("SELECT 1 FROM _retracted LIMIT 1").fetchall() else "true"
    for view, kind in FLAT.items():
        extra = ", list_transform(verdict.detections, lambda d: d.category) AS categories" if kind == "verdict" else ""
        connection.execute(
            f"CREATE VIEW {view} AS SELECT {_columns(_OF_EVENT)}, {_fields(kind, KINDS[kind].columns)}{extra} "
            f"FROM {'events' if whole else _narrow(connection, lake, events, kind, there)} e "
            f"WHERE e.kind = '{kind}' AND {holds}"
        )
    # Its fields, and not the struct: whether that is null DuckDB finds out by putting it together, in twice the time.
    known = " OR ".join(f"e.usage.{identifier(c.name)} IS NOT NULL" for c in USAGE)
    connection.execute(
        f"CREATE VIEW calls AS SELECT {_columns(_OF_CALL)}, {_fields('usage', USAGE)} "
        f"FROM {'events' if whole else _narrow(connection, lake, events, 'usage', there)} e WHERE ({known}) AND {holds}"
    )
    connection.execute(f"CREATE VIEW datasets AS {_all_datasets(read)}")
    connection.execute(f"CREATE VIEW choices AS {_all_choices(read)}")
    connection.execute(f"CREATE VIEW dataset_versions AS {_dataset_versions(read)}")
    connection.execute((files("sql") / "_macros.sql").read_text(encoding="utf-8"))
    connection.execute(f"CREATE VIEW _dataset_rows AS {_dataset_rows(read)}")
    connection.execute((files("sql") / "_lineage.sql").read_text(encoding="utf-8"))
    return allowed


_RETRACTED = (
    "SELECT trajectory_id, retraction.target_event AS event_id FROM events "
    "WHERE kind = 'retraction' AND retraction IS NOT NULL"
)
_HOLDS = (
    "e.event_id NOT IN (SELECT r.event_id FROM _retracted r WHERE r.event_id IS NOT NULL) "
    "AND e.trajectory_id NOT IN (SELECT r.trajectory_id FROM _retracted r WHERE r.event_id IS NULL)"
)


def _columns(names: Sequence[str]) -> str:
    return ", ".join(f"e.{c}" for c in names)


def _fields(struct: str, columns: Sequence[Column]) -> str:
    return ", ".join(f"e.{struct}.{identifier(c.name)}" for c in columns)


def view_name(table: str) -> str:
    """The view of a table, quoted: `dataset_<recipe>` for datasets, `choices_<recipe>` for what was chosen for them."""
    return identifier(table.replace("datasets/", "dataset_", 1).replace("choices/", "choices_", 1))


def identifier(name: str) -> str:
    """A name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _view(
    connection: duckdb.DuckDBPyConnection, lake: Lake, name: str, handle: DeltaTable | None, declared: bool = False
) -> list[str]:
    """Make one view; returns the files it reads."""
    spec = lake.spec(name)
    view = view_name(name)
    if handle is not None:
        _refuse(name, handle)
        lake.require_whole(handle)
    paths = [] if handle is None else paths_of(handle)
    if handle is None or not paths:
        connection.execute(f"CREATE VIEW {view} AS {_empty(spec)}")
        return []
    if not lake.local:
        stored = pa.schema(handle.schema().to_arrow())
        columns = ", ".join(_column(c, stored) for c in spec.columns)
        connection.register(f"_{name}", lake.dataset(handle))
        connection.execute(f"CREATE VIEW {view} AS SELECT {columns} FROM {identifier('_' + name)}")
        return []
    connection.execute(f"SET VARIABLE {_files(name)} = [{', '.join(map(quoted, paths))}]")
    connection.execute(
        f"CREATE VIEW {view} AS {_reading(connection, name, name, handle, spec, spec.columns, _all_there(handle), declared)}"
    )
    return paths


def _narrow(
    connection: duckdb.DuckDBPyConnection, lake: Lake, events: DeltaTable | None, payload: str, there: bool | None
) -> str:
    """A view of events with one payload only: DuckDB looks at every declared field whenever it plans to read files."""
    if events is None or not lake.local or not events.file_uris():
        return "events"
    names = _ENVELOPE.keys() - {"usage", "extra"} | {payload}
    columns = [c for c in EVENTS.columns if c.name in names]
    view = f"_events_{payload}"
    connection.execute(
        f"CREATE VIEW {view} AS {_reading(connection, view, 'events', events, EVENTS, columns, there, True)}"
    )
    return view


def _files(name: str) -> str:
    """The variable that has the files of a table: several views read those of `events`, and they can be many."""
    return identifier(f"_files_{name}")


def _reading(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    name: str,
    handle: DeltaTable,
    spec: Table,
    columns: Sequence[Column],
    there: bool | None,
    declared: bool,
) -> str:
    """The SELECT that reads columns of a table on this machine; what it declares is a variable, built once for all queries.

    DuckDB takes what is declared by its place within a struct, so files some of which lack a column are matched by name.
    """
    stored = pa.schema(handle.schema().to_arrow())
    wanted, partitions = {c.name for c in columns}, list(spec.partition_by)
    source = f"getvariable({quoted(f'_files_{name}')}), hive_partitioning = false"
    if there is False:
        stored = pa.unify_schemas(
            [*map(_schema, paths_of(handle)), *[pa.schema([stored.field(p)]) for p in partitions]]
        )
        source += ", union_by_name = true"
    elif declared or there is None or len(handle.file_uris()) > _FEW:
        inside = [f for f in stored if f.name in wanted and f.name not in partitions]
        types = ", ".join(f"{quoted(f.name)}: {_declared(f)}" for f in inside)
        connection.execute(f"SET VARIABLE {identifier(f'_schema_{view}')} = MAP {{{types}}}")
        source += f", schema = getvariable({quoted(f'_schema_{view}')})"
    selected = ", ".join(_column(c, stored) for c in columns)
    if not partitions:
        return f"SELECT {selected} FROM read_parquet({source})"
    folders = "".join(f", url_decode(regexp_extract(_file, '/{p}=([^/]*)/', 1)) AS {identifier(p)}" for p in partitions)
    return f"SELECT {selected} FROM (SELECT *{folders} FROM read_parquet({source}, filename = '_file'))"


def _all_there(handle: DeltaTable) -> bool | None:
    """Whether every file has the table's columns and types, by its oldest ones: a writer gives all that there are at its time.

    None when one cannot be read, which is then the matter of those who ask this table.
    """
    files = pa.table(handle.get_add_actions(flatten=True)).sort_by("modification_time").column("path").to_pylist()
    oldest = set(map(file_name, files[:_FEW]))
    stored = pa.schema(handle.schema().to_arrow())
    fields = {f.name: f.type for f in stored if f.name not in handle.metadata().partition_columns}
    try:
        found = [_schema(path) for path in paths_of(handle) if file_name(path) in oldest]
    except (OSError, pa.ArrowException):
        return None
    return all(fields.items() <= dict(zip(schema.names, schema.types, strict=True)).items() for schema in found)


@lru_cache(maxsize=256)
def _schema(path: str) -> pa.Schema:
    """The columns of a data file, which never changes."""
    return pq.read_schema(path)


def _empty(spec: Table) -> str:
    return f"SELECT {', '.join(f'NULL::{_type(c.type)} AS {identifier(c.name)}' for c in spec.columns)} WHERE false"


def _all_datasets(names: Mapping[str, int]) -> str:
    return " UNION ALL ".join([_empty(DATASET), *(f"SELECT * FROM {view_name(name)}" for name in names)])


def _all_choices(names: Mapping[str, int]) -> str:
    recipes = [name.removeprefix("datasets/") for name in names]
    selects = [f"SELECT {quoted(r)} AS recipe, * FROM {view_name(f'choices/{r}')}" for r in recipes]
    return " UNION ALL ".join([_empty(VIEWS["choices"]), *selects])


def _dataset_versions(read: Mapping[str, int]) -> str:
    selects = [f"SELECT {quoted(name)}, {version}::BIGINT" for name, version in read.items()]
    return " UNION ALL ".join([_empty(VIEWS["dataset_versions"]), *selects])


def _dataset_rows(read: Mapping[str, int]) -> str:
    """What lineage needs of the rows, each with the version it is read at."""
    columns = ("row_id", "trajectory_id", "event_ids", "mask_event_ids")
    types = {c.name: _type(c.type) for c in DATASET.columns}
    nothing = ", ".join(["NULL::VARCHAR AS dataset", *(f"NULL::{types[c]} AS {c}" for c in columns)])
    selects = [f"SELECT {quoted(f'{n}@{v}')}, {', '.join(columns)} FROM {view_name(n)}" for n, v in read.items()]
    return " UNION ALL ".join([f"SELECT {nothing} WHERE false", *selects])


def _declared(field: pa.Field) -> str:
    return f"{{name: {quoted(field.name)}, type: {quoted(_type(field.type))}, default_value: NULL}}"


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
    name = identifier(column.name)
    if column.name not in stored.names:
        return f"NULL::{_type(column.type)} AS {name}"
    old = stored.field(column.name).type
    if not pa.types.is_struct(column.type) or old == column.type:
        return name
    have = {old.field(i).name for i in range(old.num_fields)}
    items = []
    for child in (column.type.field(i) for i in range(column.type.num_fields)):
        value = f"{name}.{identifier(child.name)}" if child.name in have else f"NULL::{_type(child.type)}"
        for (kind, version), fields in UPCASTS.items():
            if kind == column.name and child.name in fields:
                value = f"CASE WHEN schema_version = {version} THEN {fields[child.name]} ELSE {value} END"
        items.append(f"{identifier(child.name)} := {value}")
    return f"CASE WHEN {name} IS NULL THEN NULL ELSE struct_pack({', '.join(items)}) END AS {name}"


def _type(arrow: pa.DataType) -> str:
    if pa.types.is_struct(arrow):
        return f"STRUCT({', '.join(f'{identifier(f.name)} {_type(f.type)}' for f in arrow)})"
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        return f"{_type(arrow.value_type)}[]"
    if pa.types.is_timestamp(arrow):
        return "TIMESTAMPTZ" if arrow.tz else "TIMESTAMP"
    text, binary = ("string", "large_string", "string_view"), ("binary", "large_binary", "binary_view")
    known = dict.fromkeys(text, "VARCHAR") | dict.fromkeys(binary, "BLOB")
    known |= {"bool": "BOOLEAN", "int32": "INTEGER", "int64": "BIGINT", "double": "DOUBLE"}
    return known[str(arrow)]


assert UPCASTS.keys() == UPCASTERS.keys(), "every upcaster needs its SQL in UPCASTS"
