"""The schema page: every table, view and kind of event with its columns, written from the declarations themselves.

    python -m stepwell.schema_page > docs/schema.md

Belongs here: turning declarations into Markdown. A test requires the committed page to be what this prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from schemas.column import Column, Table
from schemas.kinds import ACTORS, KINDS, LABELS
from schemas.tables import DATASET, TABLES
from stepwell.query import VIEWS


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Schema"
    yield ""
    yield "Written by `python -m stepwell.schema_page > docs/schema.md` from `schemas/`; do not edit."
    yield ""
    yield "- [Tables](#tables): " + ", ".join(f"[{name}](#{name})" for name in [*TABLES, "dataset_recipe"])
    yield "- [Views](#views): " + ", ".join(f"[{name}](#{name})" for name in VIEWS)
    yield "- [Kinds of event](#kinds-of-event): " + ", ".join(f"[{name}](#kind-{name})" for name in KINDS)
    yield ""
    yield "## Tables"
    for table in TABLES.values():
        yield from _table(table.name, table, "kinds of event" if table.name == "events" else "")
    yield from _table(
        "dataset_recipe", DATASET, "", "One table a recipe, at `datasets/<recipe>`; in SQL `dataset_<recipe>`."
    )
    yield ""
    yield "## Views"
    for view in VIEWS.values():
        yield from _table(view.name, view, "")
    yield ""
    yield "## Kinds of event"
    yield ""
    yield "The payload of a kind is the struct column of that name in `events`. Events of one step stand in this order."
    yield f"Actors: {', '.join(ACTORS)}. Labels of a verdict: {', '.join(LABELS)}."
    for kind in KINDS.values():
        yield ""
        yield f"### Kind: {kind.name}"
        yield ""
        yield f"{kind.doc} Payload version {kind.version}."
        yield ""
        yield from _columns(kind.columns)


def _table(title: str, table: Table, payloads: str, note: str = "") -> Iterator[str]:
    yield ""
    yield f"### {title}"
    yield ""
    partitions = f" Partitioned by {', '.join(f'`{c}`' for c in table.partition_by)}." if table.partition_by else ""
    yield f"{table.doc} Key: {', '.join(f'`{c}`' for c in table.key)}.{partitions}{' ' + note if note else ''}"
    yield ""
    columns = [c for c in table.columns if not (payloads and c.name in KINDS)]
    yield from _columns(columns)
    if payloads:
        yield ""
        yield f"Then one nullable struct column a kind, described under [{payloads}](#{payloads.replace(' ', '-')})."


def _columns(columns: Sequence[Column]) -> Iterator[str]:
    yield "| column | type | null | meaning |"
    yield "|---|---|---|---|"
    for column in columns:
        yield f"| `{column.name}` | {_type(column.type)} | {'yes' if column.nullable else 'no'} | {_cell(column.doc)} |"
        for child in _children(column.type):
            doc = (child.metadata or {}).get(b"comment", b"").decode()
            yield f"| `{column.name}.{child.name}` | {_type(child.type)} | yes | {_cell(doc)} |"


def _children(type_: pa.DataType) -> Sequence[pa.Field]:
    if pa.types.is_list(type_):
        type_ = type_.value_type
    return [type_.field(i) for i in range(type_.num_fields)] if pa.types.is_struct(type_) else []


def _type(type_: pa.DataType) -> str:
    if pa.types.is_list(type_):
        return f"list of {_type(type_.value_type)}"
    if pa.types.is_struct(type_):
        return "struct"
    if pa.types.is_timestamp(type_):
        return "timestamp (us, UTC)"
    return str(type_)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
