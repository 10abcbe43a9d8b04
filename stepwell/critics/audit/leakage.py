"""Leakage: can one tell from a critique which agent it is about (METHODS.md K10)?

Belongs here: the classifier two-sample test on critiques, and the divergence of what is detected. Does not belong here:
agreement with a truth. A critic that is agnostic of the agent scores AUC .5 and divergence about that of shuffled agents.
The classifier is ridge regression: its predictions are linear in the targets, so that every permutation costs one column.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from scipy.special import rel_entr
from scipy.stats import rankdata

from stepwell.bootstrap import Array, ratio
from stepwell.critics.audit.intervention import group_sums
from stepwell.critics.audit.ratings import Codes, verdicts
from stepwell.errors import UsageError

COLUMNS = (
    "event_id", "trajectory_id", "step", "kind", "actor", "policy", "caused_by", "verdict", "start", "retraction",
)  # fmt: skip
"""Columns of `events` that `leakage` reads."""
KINDS = ("verdict", "start", "retraction")
"""Kinds of events that `leakage` reads."""
_WORD = re.compile(r"[a-z_]{2,}|\d+")
_WORDS, _UNITS, _FOLDS, _RIDGE = 2000, 2000, 5, 1.0
_QUIET = "(nothing)"


@dataclass(frozen=True)
class Leakage:
    """How well critiques tell two agents apart, matched on severity; p-values are of shuffling agents over trajectories.

    `jsd` is the Jensen-Shannon divergence of detections in bits; `auc_chance` and `jsd_chance` are the shuffled means.
    """

    critic: str
    agents: tuple[str, str]
    n_critiques: int
    n_trajectories: int
    auc: float
    auc_chance: float
    auc_p: float
    jsd: float
    jsd_chance: float
    jsd_p: float
    permutations: int
    seed: int


def leakage(events: pa.Table, critic: str, permutations: int = 500, seed: int = 0) -> list[Leakage]:
    """The test for every pair of agents (harness and model) the critic judged often enough; `events` with COLUMNS.

    Critiques are matched on severity (else label, else judgment) by leaving out what either agent has more of, and only
    those alike in it are compared; the cross-validation keeps every trajectory whole. Words quoted from the agent count:
    what is tested is the critique as it would be learnt from.
    Raises UsageError when no two agents have critiques of five trajectories each.
    """
    field = pl.col("start").struct.field
    starts = pl.DataFrame(events.select(["kind", "trajectory_id", "start"])).filter(pl.col("kind") == "start")
    agent = pl.concat_str(field("agent"), field("model"), separator=" ", ignore_nulls=True).alias("agent")
    said = verdicts(events).filter(pl.col("policy") == critic, pl.col("parse_status") != "unparseable")
    said = said.join(starts.select("trajectory_id", agent).unique("trajectory_id"), on="trajectory_id")
    matched_on = (pl.col(name).cast(pl.String) for name in ("severity", "label", "judgment"))
    said = said.with_columns(
        stratum=pl.coalesce(*matched_on, pl.lit("")),
        text=pl.concat_str("guidance", "evidence", separator=" ", ignore_nulls=True),
        categories=pl.col("categories").fill_null([]),
    ).sort("event_id")
    trajectories = said.group_by("agent").agg(pl.col("trajectory_id").n_unique().alias("n"))
    agents = sorted(trajectories.filter(pl.col("n") >= _FOLDS)["agent"])
    pairs = [(a, b) for i, a in enumerate(agents) for b in agents[i + 1 :]]
    if not pairs:
        raise UsageError(
            f"{critic!r} judged fewer than two agents on {_FOLDS} trajectories or more: "
            f"{', '.join(f'{a} ({n})' for a, n in trajectories.sort('agent').iter_rows()) or 'none'}. Judge more first."
        )
    found = (_pair(said.filter(pl.col("agent").is_in(p)), critic, p, permutations, seed) for p in pairs)
    return [f for f in found if f is not None]


def _pair(said: pl.DataFrame, critic: str, agents: tuple[str, str], permutations: int, seed: int) -> Leakage | None:
    rng = np.random.default_rng(seed)
    rows = _matched(said, agents, rng)
    second = (rows["agent"] == agents[1]).cast(pl.Float64).to_numpy()
    streams, groups = np.unique(rows["trajectory_id"].to_numpy(), return_inverse=True)
    of_stream = np.zeros(len(streams))
    of_stream[groups] = second
    if min(of_stream.sum(), (1 - of_stream).sum()) < _FOLDS:
        return None
    shuffled = np.stack([of_stream, *(rng.permutation(of_stream) for _ in range(permutations))], axis=1)
    _, strata = np.unique(rows["stratum"].to_numpy(), return_inverse=True)
    areas = _areas(_features(rows), shuffled[groups], rng.integers(_FOLDS, size=len(streams))[groups], strata)
    divergences = _divergences(rows["categories"].to_list(), groups, shuffled)
    return Leakage(
        critic, agents, len(rows), len(streams),
        float(areas[0]), float(areas[1:].mean()), _p(areas),
        float(divergences[0]), float(divergences[1:].mean()), _p(divergences),
        permutations, seed,
    )  # fmt: skip


def _matched(said: pl.DataFrame, agents: tuple[str, str], rng: np.random.Generator) -> pl.DataFrame:
    """As many critiques of either agent in every stratum, drawn; about _UNITS at most in all."""
    shuffled = said[rng.permutation(len(said))]
    n = shuffled.group_by("stratum").agg((pl.col("agent") == a).sum().alias(str(i)) for i, a in enumerate(agents))
    room = n.select("stratum", most=pl.min_horizontal("0", "1"))
    share = min(1.0, _UNITS / max(1, 2 * int(room["most"].sum())))
    place = pl.int_range(pl.len()).over("stratum", "agent")
    kept = shuffled.join(room, on="stratum").filter(place < (pl.col("most") * share).ceil())
    return kept.sort("event_id")


def _features(rows: pl.DataFrame) -> Array:
    """Bags of words (log counts) beside detection vectors, (critiques, features); each half has length 1 or 0."""
    bags = [Counter(_WORD.findall(text.lower())) for text in rows["text"].fill_null("")]
    spread = Counter(word for bag in bags for word in bag)
    frequent = sorted((w for w in spread if spread[w] > 1), key=lambda w: (-spread[w], w))[:_WORDS]
    flags = [Counter(c) for c in rows["categories"]]
    return np.concatenate([_vectors(bags, frequent), _vectors(flags, sorted({c for f in flags for c in f}))], axis=1)


def _vectors(bags: Sequence[Counter[str]], vocabulary: Sequence[str]) -> Array:
    column = {word: i for i, word in enumerate(vocabulary)}
    table = np.zeros((len(bags), len(vocabulary)))
    for row, bag in enumerate(bags):
        for word, n in bag.items():
            if word in column:
                table[row, column[word]] = np.log1p(n)
    unit: Array = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return unit


def _areas(features: Array, targets: Array, folds: Codes, strata: Codes) -> Array:
    """AUC of every column of targets (critiques, columns): each fold predicted from the others, pairs of one stratum."""
    won, pairs = np.zeros(targets.shape[1]), np.zeros(targets.shape[1])
    for fold in np.unique(folds):
        rest = folds != fold
        kernel = features[rest] @ features[rest].T + _RIDGE * np.eye(rest.sum())
        weights = features[rest].T @ np.linalg.solve(kernel, targets[rest] - targets[rest].mean(axis=0))
        for stratum in np.unique(strata):
            test = ~rest & (strata == stratum)
            ranks = rankdata(features[test] @ weights, axis=0)
            positive = targets[test].sum(axis=0)
            won += (ranks * targets[test]).sum(axis=0) - positive * (positive + 1) / 2
            pairs += positive * (test.sum() - positive)
    return ratio(won, pairs)[0]


def _divergences(flags: Sequence[Sequence[str]], groups: Codes, second: Array) -> Array:
    """Jensen-Shannon divergence in bits of the categories of both agents, for every column (trajectories, columns)."""
    names = sorted({c for f in flags for c in f})
    said = _counts(flags, [*names, _QUIET])
    by_stream = group_sums(said, groups, len(second))
    b = second.T @ by_stream
    a = by_stream.sum(axis=0) - b
    p, q = (ratio(x, x.sum(axis=1, keepdims=True))[0] for x in (a, b))
    apart: Array = (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum(axis=1) / 2 / np.log(2)
    return apart


def _counts(flags: Sequence[Sequence[str]], names: Sequence[str]) -> Array:
    table = np.zeros((len(flags), len(names)))
    for row, found in enumerate(flags):
        for name in set(found) or {_QUIET}:
            table[row, names.index(name)] = 1
    return table


def _p(values: Array) -> float:
    """Share of values, the first of which is observed, that are as large as it."""
    return float((values >= values[0] - 1e-12).mean())
