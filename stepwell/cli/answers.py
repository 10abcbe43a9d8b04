"""How an answer is printed or written: as a table, JSON, CSV, Markdown or Parquet."""

from __future__ import annotations

import csv
import io
from enum import StrEnum
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from stepwell.cli.common import console, emit, output, put
from stepwell.display import terminal
from stepwell.errors import UsageError
from stepwell.sheets import cell

_SHOWN = 200


class Format(StrEnum):
    """How an answer is printed."""

    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"
    parquet = "parquet"


_SUFFIXES = {".json": Format.json, ".csv": Format.csv, ".md": Format.markdown, ".parquet": Format.parquet}


def format_of(asked: Format | None, to: Path | None) -> Format:
    """The format asked for, else the one a file's name tells; raises UsageError where it does not, or cannot be printed."""
    told = asked or (Format.table if to is None else _SUFFIXES.get(to.suffix))
    if told is None:
        raise UsageError(f"{to} tells no format; allowed: {', '.join(_SUFFIXES)}. Or give --format.")
    if told is Format.parquet and to is None:
        raise UsageError("Parquet is not for a terminal; name a file with --output FILE.")
    return told


def show(answer: pa.Table, shape: Format, to: Path | None = None) -> None:
    """Print an answer, or write it to a file."""
    if to is not None:
        _write(answer, shape, to)
        console.print(f"{len(answer)} rows in {to}", highlight=False, markup=False)
    elif shape is Format.json:
        emit(answer.to_pylist())
    elif shape is Format.table:
        output.print(_table(answer))
        if len(answer) > _SHOWN:
            console.print(f"{_SHOWN} of {len(answer)} rows shown; --format csv gives all.", highlight=False)
    else:
        put(_text(answer, shape))


def _write(answer: pa.Table, shape: Format, to: Path) -> None:
    if shape is Format.parquet:
        pq.write_table(answer, to)
    elif shape is Format.json:
        to.write_bytes(orjson.dumps(answer.to_pylist(), default=str, option=orjson.OPT_INDENT_2))
    elif shape is Format.table:
        raise UsageError(f"a table is for a terminal; allowed in {to}: json, csv, markdown, parquet. Give --format.")
    else:
        to.write_text(_text(answer, shape), encoding="utf-8")


def _text(answer: pa.Table, shape: Format) -> str:
    out = io.StringIO()
    rows = zip(*(c.to_pylist() for c in answer.columns), strict=True)
    if shape is Format.csv:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(answer.column_names)
        writer.writerows(rows)
        return out.getvalue()
    for line in (answer.column_names, ["---"] * answer.num_columns, *rows):
        out.write(f"| {' | '.join('' if value is None else cell(str(value)) for value in line)} |\n")
    return out.getvalue()


def _table(answer: pa.Table) -> Table:
    table = Table(*(terminal(name) for name in answer.column_names))
    for row in answer.slice(0, _SHOWN).to_pylist():
        table.add_row(*(terminal("" if v is None else str(v)) for v in row.values()))
    return table
