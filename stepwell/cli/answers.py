"""How an answer is printed or written: as a table, JSON, CSV, Markdown or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from stepwell.cli.common import console, output, put, writing
from stepwell.display import terminal
from stepwell.errors import UsageError
from stepwell.sheets import cell

_SHOWN = 200
_CAST = "cast the column to text, for example CAST(x AS VARCHAR)"


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
    elif shape is Format.table:
        output.print(_table(answer))
        if len(answer) > _SHOWN:
            console.print(f"{_SHOWN} of {len(answer)} rows shown; --format csv gives all.", highlight=False)
    else:
        put(_text(answer, shape))


def _write(answer: pa.Table, shape: Format, to: Path) -> None:
    if shape is Format.table:
        raise UsageError(f"a table is for a terminal; allowed in {to}: json, csv, markdown, parquet. Give --format.")
    text = "" if shape is Format.parquet else _text(answer, shape)
    try:
        with writing(to):
            if shape is Format.parquet:
                pq.write_table(answer, to)
            else:
                to.write_text(text, encoding="utf-8")
    except pa.ArrowException as error:
        raise UsageError(f"Parquet cannot hold the answer ({error}); {_CAST}.") from error


def _rows(answer: pa.Table) -> Iterator[tuple[Any, ...]]:
    """The rows as Python has them, bytes as text; raises UsageError for a column with a value that Python has not."""
    columns = []
    for name, column in zip(answer.column_names, answer.columns, strict=True):
        try:
            columns.append([_text_of(v) if isinstance(v, bytes) else v for v in column.to_pylist()])
        except (OverflowError, ValueError) as error:
            raise UsageError(f"column {name!r} ({column.type}) holds what Python cannot ({error}); {_CAST}.") from error
    return zip(*columns, strict=True)


def _json(value: Any) -> Any:
    """What orjson does not know: a DECIMAL or HUGEINT is a number however long, bytes and anything else their text."""
    if isinstance(value, bytes):
        return _text_of(value)
    if not isinstance(value, Decimal):
        return str(value)
    return float(value) if value.as_tuple().exponent else orjson.Fragment(str(value))


def _text_of(data: bytes) -> str:
    """Bytes as the UTF-8 they are, or with what is none written out, such as `\\xff`."""
    return data.decode("utf-8", "backslashreplace")


def _text(answer: pa.Table, shape: Format) -> str:
    out, rows = io.StringIO(), _rows(answer)
    if shape is Format.json:
        named = [dict(zip(answer.column_names, row, strict=True)) for row in rows]
        return orjson.dumps(named, default=_json, option=orjson.OPT_INDENT_2).decode() + "\n"
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
    for row in _rows(answer.slice(0, _SHOWN)):
        table.add_row(*(terminal("" if v is None else str(v)) for v in row))
    return table
