"""Rows of Parquet as plain Python, read row group by row group.

Parquet pads every struct with the fields of all its siblings: fields that are null are left out. Times become ISO text,
decimals text, bytes text where they are UTF-8 and base64 otherwise, NaN and infinities text.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stepwell.errors import BadInput
from stepwell.importers.files import LARGEST, Blob

_ROWS = 64


def rows(blob: Blob) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file one at a time. Raises BadInput for what is damaged or has row groups too large to read."""
    try:
        with blob.open() as stream, pq.ParquetFile(stream) as file:
            for i in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(i).total_byte_size
                if size > 2 * LARGEST:
                    raise BadInput("too_large", f"row group {i} has {size} bytes; write it with smaller ones.")
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from (plain(row) for row in batch.to_pylist(maps_as_pydicts="lossy"))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise BadInput("bad_archive", f"not whole Parquet: {str(error)[:160]}; fetch it again.") from error


def plain(value: Any) -> Any:
    """A value of Arrow as JSON has them."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else value if _is_json(value) else str(value)


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
