"""Interventions: does a critic speak up too much, too little, about the right thing, at the right step (METHODS.md K5).

Belongs here: statistics of severity, flags, guidance and the first error. Does not belong here: labels (`agreement`).
Only units where both raters state what is compared count; null flags are not stated, an empty list states none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from schemas.kinds import LABELS
from stepwell.bootstrap import Array, Figure, Statistic, Sums, ratio
from stepwell.critics.audit.agreement import confusion, kappa, linear_weights, quadratic_weights
from stepwell.critics.audit.ratings import SEVERITIES, UNPARSEABLE, Codes

MISTAKE = LABELS.index("mistake")
_CRITICAL = SEVERITIES - 1


@dataclass(frozen=True)
class Category:
    """How often a category is flagged where the truth does not (false_alarm), and not where it does (missed).

    A critique that cannot be read misses all there is (strict); it is no false alarm, and lenient leaves it out.
    """

    category: str
    n_true: int
    n_predicted: int
    false_alarm: Figure
    missed: Figure
    missed_lenient: Figure


def group_sums(values: Array, groups: Codes, n_groups: int) -> Array:
    """Sums (groups, ...) of values (units, ...) by group."""
    total = np.zeros((n_groups, *values.shape[1:]))
    np.add.at(total, groups, values)
    return total


def severity(pairs: pl.DataFrame, n_groups: int) -> tuple[dict[str, Array], dict[str, Statistic]]:
    """Over- and under-intervention: true severities are the matrix's rows, its last column is what cannot be read.

    Strict shares are of all critiques, lenient ones of those that can be read.
    """
    unread = pl.col("class") == UNPARSEABLE
    both = pairs.filter(pl.col("severity").is_not_null() | unread, pl.col("severity_truth").is_not_null())
    true, said = (both[c].fill_null(SEVERITIES).cast(pl.Int64).to_numpy() for c in ("severity_truth", "severity"))
    square = confusion(true, said, both["group"].to_numpy(), n_groups, SEVERITIES + 1)
    shares: dict[str, Callable[[Array], tuple[Array, Array]]] = {
        "severity_exact": lambda m: ratio(np.trace(m, axis1=1, axis2=2), m.sum((-1, -2))),
        "over": lambda m: ratio(np.triu(m[..., :SEVERITIES], 1).sum((-1, -2)), m.sum((-1, -2))),
        "under": lambda m: ratio(np.tril(m, -1).sum((-1, -2)), m.sum((-1, -2))),
        "on_track_intervention": lambda m: ratio(m[:, 0, 1:SEVERITIES].sum(-1), m[:, 0].sum(-1)),
        "critical_downgrade": lambda m: ratio(m[:, _CRITICAL, :_CRITICAL].sum(-1), m[:, _CRITICAL].sum(-1)),
        "severity_unparseable": lambda m: ratio(m[:, :, SEVERITIES:].sum((-1, -2)), m.sum((-1, -2))),
    }

    def of(part: Callable[[Array], tuple[Array, Array]], width: int) -> Statistic:
        return lambda s: part(s["severity"][:, :SEVERITIES, :width])

    made = {name: of(part, SEVERITIES + 1) for name, part in shares.items()}
    made |= {f"{name}_lenient": of(part, SEVERITIES) for name, part in shares.items() if name != "severity_unparseable"}
    made["severity_kappa_linear"] = of(lambda m: kappa(m, linear_weights(SEVERITIES)), SEVERITIES)
    made["severity_kappa_quadratic"] = of(lambda m: kappa(m, quadratic_weights(SEVERITIES)), SEVERITIES)
    return {"severity": square}, made


def speech(pairs: pl.DataFrame, n_groups: int) -> tuple[dict[str, Array], dict[str, Statistic]]:
    """Flags per critique of critic and truth, and how long its guidance is for the same units (a ratio of characters)."""
    size = pl.col("categories").list.n_unique(), pl.col("categories_truth").list.n_unique()
    flags = pairs.select("group", *size).drop_nulls()
    told = pairs.select(
        "group", pl.col("guidance").str.len_chars(), pl.col("guidance_truth").str.len_chars()
    ).drop_nulls()
    sums = {
        "flags": group_sums(_with_count(flags, "categories"), flags["group"].to_numpy(), n_groups),
        "guidance": group_sums(_with_count(told, "guidance"), told["group"].to_numpy(), n_groups),
    }
    return sums, {
        "flags_per_critique": lambda s: ratio(s["flags"][:, 0], s["flags"][:, 2]),
        "flags_per_critique_truth": lambda s: ratio(s["flags"][:, 1], s["flags"][:, 2]),
        "guidance_length_ratio": lambda s: (ratio(s["guidance"][:, 0], s["guidance"][:, 1])[0], s["guidance"][:, 2]),
    }


def categories(pairs: pl.DataFrame, n_groups: int) -> tuple[list[str], dict[str, Array], dict[str, Statistic]]:
    """Every category either flags: sums (groups, categories, 2, 3), by flagged in truth and by not, flagged or unread."""
    unread = pl.col("class") == UNPARSEABLE
    both = pairs.filter(pl.col("categories").is_not_null() | unread, pl.col("categories_truth").is_not_null())
    names = sorted(set(both["categories_truth"].explode(empty_as_null=True).drop_nulls()))
    if not names:
        return [], {}, {}
    names = sorted({*names, *both["categories"].explode(empty_as_null=True).drop_nulls()})
    groups = both["group"].to_numpy()
    tables = []
    for name in names:
        true = both["categories_truth"].list.contains(name).cast(pl.Int64).to_numpy()
        said = both["categories"].list.contains(name).cast(pl.Int64).fill_null(2).to_numpy()
        tables.append(confusion(true, said, groups, n_groups, 3)[:, :2])

    def error(i: int, true: int, width: int) -> Statistic:
        def statistic(s: Sums) -> tuple[Array, Array]:
            row = s["categories"][:, i, true, :width]
            return ratio(row.sum(-1) - row[:, 1] if true else row[:, 1], row.sum(-1))

        return statistic

    made: dict[str, Statistic] = {}
    for i, name in enumerate(names):
        made |= {f"{name}.false_alarm": error(i, 0, 2), f"{name}.missed": error(i, 1, 3)}
        made[f"{name}.missed_lenient"] = error(i, 1, 2)
    return names, {"categories": np.stack(tables, axis=1)}, made


def category_figures(names: list[str], found: Mapping[str, Figure], sums: Sums) -> list[Category]:
    """The figures of `categories`, by name."""
    total = sums["categories"].sum(0) if names else np.empty(0)
    kinds = ("false_alarm", "missed", "missed_lenient")
    return [
        Category(name, int(total[i, 1].sum()), int(total[i, :, 1].sum()), *(found[f"{name}.{k}"] for k in kinds))
        for i, name in enumerate(names)
    ]


def first_error(pairs: pl.DataFrame, n_groups: int) -> tuple[dict[str, Array], dict[str, Statistic]]:
    """Distance in steps between the first mistake of the truth and the critic's first, by trajectory.

    Mean and median are over trajectories where both found one; `never_found` is where only the truth did.
    """
    at = pairs.group_by("group").agg(
        pl.col("first").filter(pl.col("class_truth") == MISTAKE).min().alias("true"),
        pl.col("first").filter(pl.col("class") == MISTAKE).min().alias("said"),
    )
    flawed = at.filter(pl.col("true").is_not_null()).with_columns((pl.col("said") - pl.col("true")).abs().alias("off"))
    furthest = flawed["off"].max()
    width = (furthest if isinstance(furthest, int) else 0) + 1
    histogram = np.zeros((n_groups, width + 1))  # the last column: never found
    histogram[flawed["group"].to_numpy(), flawed["off"].fill_null(width).to_numpy()] = 1
    clean = at.filter(pl.col("true").is_null())
    flawless = np.zeros((n_groups, 2))
    flawless[clean["group"].to_numpy(), clean["said"].is_not_null().cast(pl.Int64).to_numpy()] = 1

    def found(s: Sums) -> Array:
        return s["first_error"][:, :width]

    return {"first_error": histogram, "flawless": flawless}, {
        "first_error_mean": lambda s: ratio(found(s) @ np.arange(width), found(s).sum(-1)),
        "first_error_median": lambda s: (_median(found(s)), found(s).sum(-1)),
        "first_error_exact": lambda s: ratio(s["first_error"][:, 0], s["first_error"].sum(-1)),
        "first_error_never_found": lambda s: ratio(s["first_error"][:, width], s["first_error"].sum(-1)),
        "flawless_flagged": lambda s: ratio(s["flawless"][:, 1], s["flawless"].sum(-1)),
    }


def _median(histogram: Array) -> Array:
    """Median of the column numbers weighted by the counts of each row; NaN for empty rows."""
    n = histogram.sum(-1)
    running = histogram.cumsum(-1)
    low = (running < ((n + 1) // 2)[:, None]).sum(-1)
    high = (running < (n // 2 + 1)[:, None]).sum(-1)
    return np.where(n > 0, (low + high) / 2, np.nan)


def _with_count(frame: pl.DataFrame, name: str) -> Array:
    both = frame.select(name, f"{name}_truth").to_numpy().astype(np.float64)
    return np.concatenate([both, np.ones((len(both), 1))], axis=1)
