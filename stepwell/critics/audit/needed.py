"""Whether a critic spoke up where something was wrong, for truths that state labels and no severity (METHODS.md K5).

Belongs here: what a label says of the need to intervene. Does not belong here: severities both raters state
(`intervention`). A label tells less than a severity: a mistake needs a correction, a good or a recovering step needs none,
an unnecessary one is left out, as labels do not say whether it was worth a word. How grave a mistake is cannot be derived,
so there is no downgrade and no kappa here. A window needs a correction when one of its steps does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from schemas.kinds import LABELS
from stepwell.bootstrap import Array, Statistic, ratio
from stepwell.critics.audit.agreement import confusion
from stepwell.critics.audit.ratings import UNPARSEABLE

_UNIT = ["trajectory_id", "first", "last"]
_UNREAD = 2
_NEED = {LABELS.index("good"): False, LABELS.index("recover"): False, LABELS.index("mistake"): True}


def needed(rated: pl.DataFrame, critic: str, truth: str) -> pl.DataFrame:
    """Units of the critic whose need the truth's steps tell: trajectory_id, need (0 or 1), said (0, 1, or 2: unreadable).

    `rated` are `ratings` with windows as they are. A critic's severity counts, else its label.
    """
    wrong = pl.coalesce(
        pl.col("severity") > 0, pl.col("class").replace_strict(_NEED, default=None, return_dtype=pl.Boolean)
    )
    said = pl.when(pl.col("class") == UNPARSEABLE).then(_UNREAD).otherwise(wrong.cast(pl.Int64)).alias("said")
    units = rated.filter(pl.col("policy") == critic).select(*_UNIT, said).drop_nulls("said")
    steps = rated.filter(pl.col("policy") == truth, pl.col("first") == pl.col("last"))
    told = steps.select("trajectory_id", pl.col("first").alias("step"), wrong.alias("need")).drop_nulls("need")
    covered = units.with_columns(pl.int_ranges("first", pl.col("last") + 1, dtype=pl.Int32).alias("step"))
    joined = covered.explode("step", empty_as_null=True).join(told, on=["trajectory_id", "step"])
    return joined.group_by(*_UNIT, "said").agg(pl.col("need").any().cast(pl.Int64)).sort(_UNIT)


def statistics(units: pl.DataFrame, n_groups: int) -> tuple[dict[str, Array], dict[str, Statistic]]:
    """Shares of `needed` units with `group`; strict ones count what cannot be read as not having spoken up."""
    need, said = (units[c].cast(pl.Int64).to_numpy() for c in ("need", "said"))
    table = confusion(need, said, units["group"].to_numpy(), n_groups, 3)[:, :2]
    shares: dict[str, Callable[[Array], tuple[Array, Array]]] = {
        "needless": lambda m: ratio(m[:, 0, 1], m.sum((-1, -2))),
        "neglected": lambda m: ratio(m[:, 1].sum(-1) - m[:, 1, 1], m.sum((-1, -2))),
        "needless_where_on_track": lambda m: ratio(m[:, 0, 1], m[:, 0].sum(-1)),
        "neglected_where_needed": lambda m: ratio(m[:, 1].sum(-1) - m[:, 1, 1], m[:, 1].sum(-1)),
    }

    def of(part: Callable[[Array], tuple[Array, Array]], width: int) -> Statistic:
        return lambda s: part(s["needed"][:, :, :width])

    made = {name: of(part, 3) for name, part in shares.items()}
    made |= {f"{name}_lenient": of(part, _UNREAD) for name, part in shares.items()}
    return {"needed": np.asarray(table, np.float64)}, made
