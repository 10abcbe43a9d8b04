"""One row a comparison of two evaluated policies on the same tasks."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import TIMESTAMP, Table, required

COMPARISONS = Table(
    name="comparisons",
    doc="Two policies on the same tasks: difference, interval and test.",
    key=("comparison_id",),
    columns=(
        required("comparison_id", pa.string(), "128-bit hex digest of the two evaluations and the method."),
        required("evaluation_a", pa.string(), "First evaluation."),
        required("evaluation_b", pa.string(), "Second evaluation."),
        required("n_tasks", pa.int64(), "Tasks both attempted."),
        required("rate_a", pa.float64(), "Resolve rate of the first in [0, 1]."),
        required("rate_b", pa.float64(), "Resolve rate of the second in [0, 1]."),
        required("difference", pa.float64(), "rate_b - rate_a."),
        required("low", pa.float64(), "Lower end of the 95% interval of the difference."),
        required("high", pa.float64(), "Upper end of the 95% interval of the difference."),
        required("only_a", pa.int64(), "Tasks resolved by the first alone."),
        required("only_b", pa.int64(), "Tasks resolved by the second alone."),
        required("p_value", pa.float64(), "Exact McNemar test, two-sided."),
        required("n_seeds", pa.int64(), "Seeds per arm; 1 is labelled a single run."),
        required("recorded_at", TIMESTAMP, "When it was computed."),
    ),
)
