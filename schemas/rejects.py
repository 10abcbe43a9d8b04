"""One row a piece of input that could not be taken, with the bytes themselves."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import TIMESTAMP, Column, Table, required

REJECTS = Table(
    name="rejects",
    doc="Input that could not be taken: why, where it stood, and its raw bytes.",
    key=("reject_id",),
    columns=(
        required(
            "reject_id",
            pa.string(),
            "128-bit hex digest of path, offset, reason and bytes; of the detail where there are none.",
        ),
        required("path", pa.string(), "File it came from."),
        required("offset", pa.int64(), "Byte offset in that file."),
        required("reason", pa.string(), "Short reason, one of a closed list."),
        required("detail", pa.string(), "What exactly was wrong."),
        Column("format", pa.string(), "Format it was read as, where one was recognised."),
        required("raw", pa.binary(), "The bytes."),
        required("batch_id", pa.string(), "Import that met it."),
        required("recorded_at", TIMESTAMP, "When it was met."),
    ),
)
