"""One row a comparison of two arms on the same tasks."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import TIMESTAMP, Column, Table, required, struct

F64 = pa.float64()
VARIANCE = struct(
    (
        Column("task", F64, "Between tasks."),
        Column("seed", F64, "Between seeds."),
        Column("residual", F64, "What neither explains."),
    )
)

# Sentences of columns that are in lakes already stay as they are: delta-rs refuses to append under another comment.
COMPARISONS = Table(
    name="comparisons",
    doc="Two arms on the same tasks: difference, interval and test. An arm is one evaluation, or several that differ by seed. "
    "Where tasks were attempted more than once, `only_a` and `only_b` count those that one arm resolves more often, and "
    "`p_value` is of another `test`. `n_seeds` is that of the trained arm with fewer.",
    key=("comparison_id",),
    columns=(
        required("comparison_id", pa.string(), "128-bit hex digest of the two evaluations and the method."),
        required("evaluation_a", pa.string(), "First evaluation."),
        required("evaluation_b", pa.string(), "Second evaluation."),
        required("n_tasks", pa.int64(), "Tasks both attempted."),
        required("rate_a", F64, "Resolve rate of the first in [0, 1]."),
        required("rate_b", F64, "Resolve rate of the second in [0, 1]."),
        required("difference", F64, "rate_b - rate_a."),
        required("low", F64, "Lower end of the 95% interval of the difference."),
        required("high", F64, "Upper end of the 95% interval of the difference."),
        required("only_a", pa.int64(), "Tasks resolved by the first alone."),
        required("only_b", pa.int64(), "Tasks resolved by the second alone."),
        required("p_value", F64, "Exact McNemar test, two-sided."),
        required("n_seeds", pa.int64(), "Seeds per arm; 1 is labelled a single run."),
        required("recorded_at", TIMESTAMP, "When it was computed."),
        Column("arm_a", pa.string(), "Name of the first arm: recipe, model or evaluation."),
        Column("arm_b", pa.string(), "Name of the second arm."),
        Column("evaluations_a", pa.list_(pa.string()), "Evaluations of the first arm, one a seed."),
        Column("evaluations_b", pa.list_(pa.string()), "Evaluations of the second arm, one a seed."),
        Column("suite", pa.string(), "Task suite."),
        Column("task_set", pa.string(), "128-bit hex digest of the tasks compared on."),
        Column(
            "test",
            pa.string(),
            "Test of the p-value: exact McNemar, sign-flip over tasks, or t over tasks and seeds.",
        ),
        Column("family", pa.string(), "128-bit hex digest of the pairs that were corrected together."),
        Column("n_family", pa.int64(), "How many pairs those are."),
        Column("p_adjusted", F64, "p_value after Holm's correction in the family."),
        Column("q_value", F64, "p_value after Benjamini and Hochberg's correction in the family."),
        Column("minimum_detectable", F64, "Smallest difference that shows with 80% power at 5%; null where none does."),
        Column("claimable", pa.bool_(), "Whether there are seeds enough to claim a difference of the arms at all."),
        Column(
            "crossed_low", F64, "Lower end of the 95% interval over tasks and seeds; null where seeds do not allow it."
        ),
        Column("crossed_high", F64, "Upper end of the 95% interval over tasks and seeds."),
        Column("variance_a", VARIANCE, "Variance components of the first arm's outcomes; null with one seed."),
        Column("variance_b", VARIANCE, "Variance components of the second arm's outcomes; null with one seed."),
        Column("price_policy", pa.string(), "Price policy of every arm's costs; null where costs were not compared."),
        Column("cost_ratio", F64, "Cost of the second over cost of the first, agent and critic together."),
        Column("cost_ratio_low", F64, "Lower end of its 95% interval, over tasks."),
        Column("cost_ratio_high", F64, "Upper end of its 95% interval, over tasks."),
        Column("n_dirty", pa.int64(), "Tasks that training data of either arm repeats; null where nobody has looked."),
        Column("sentence", pa.string(), "What it is safe to write."),
    ),
)
