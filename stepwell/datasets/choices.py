"""What was made of every trajectory, and what follows from it alone: the funnel, the counts and the hash of a dataset.

Belongs here: rows of `choices/<recipe>` and sums over them. Does not belong here: choosing (`build`), which of them still
hold (`incremental`), the seal (`sealing`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import orjson
import polars as pl
import pyarrow as pa

from schemas.choices import CHOICES
from stepwell.ids import canonical

_FIRST, _LAST = ("in",), ("out", "masked", "trained")
_TOKENS = ("input_ids", "labels", "rejected_ids", "rejected_labels")
_COUNTED = ("trajectories", "steps", "tokens")


def left_out(about: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The choice of a trajectory that makes no row; `about` has what is known of any (id, corpus, steps, tokens)."""
    nothing = dict.fromkeys((c.name for c in CHOICES.columns if c.name.startswith("n_")), 0)
    return {**nothing, "parts": [], **about, "dropped": reason}


def kept(
    about: Mapping[str, Any], rows: pa.Table, masked_tokens: int, parts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The choice of a trajectory that makes these rows; `parts` says which others it would have made, and why not."""
    made = rows.sort_by("row_id").to_pylist()
    trained = {step for row in made for step, weight in zip(row["steps"], row["weights"], strict=True) if weight}
    return {
        **about,
        "split": made[0]["split"],
        "n_rows": len(made),
        "n_row_steps": sum(len(row["steps"]) for row in made),
        "n_row_tokens": sum(row["n_tokens"] for row in made),
        "n_trained_steps": len(trained),
        "n_trained_tokens": sum(row["n_trained_tokens"] for row in made),
        "n_masked_steps": sum(row["n_masked_steps"] for row in made),
        "n_masked_tokens": masked_tokens,
        "parts": list(parts),
        "rows_hash": _rows_hash(made),
    }


def parts_of(dropped: Iterable[tuple[str, int, int]]) -> list[dict[str, Any]]:
    """(reason, steps, tokens) of rows left out -> one part a reason."""
    sums: dict[str, Counter[str]] = {}
    for reason, steps, tokens in dropped:
        sums.setdefault(reason, Counter()).update(rows=1, steps=steps, tokens=tokens)
    return [{"reason": reason, **sums[reason]} for reason in sorted(sums)]


def funnel(choices: pl.DataFrame) -> list[dict[str, Any]]:
    """Lines in the order of the flow: in, what was dropped, out, what of it is masked and trained.

    Tokens are those of whole conversations, but from `out` on those of rows: methods that make several rows of a
    trajectory repeat some. `masked` counts steps that no row trains, and tokens of replies with weight 0.
    """
    lines = {"in": _sums(choices, "n_steps", "n_tokens")}
    for (reason,), of_reason in choices.filter(pl.col("dropped").is_not_null()).group_by("dropped"):
        lines[f"dropped: {reason}"] = _sums(of_reason, "n_steps", "n_tokens")
    out = choices.filter(pl.col("dropped").is_null())
    parts = choices.select("parts").explode("parts", empty_as_null=False).unnest("parts")
    for (reason,), of_reason in parts.group_by("reason"):
        lines[f"part dropped: {reason}"] = (
            len(of_reason),
            int(of_reason["steps"].sum()),
            int(of_reason["tokens"].sum()),
        )
    lines["out"] = _sums(out, "n_steps", "n_row_tokens")
    masked = out.with_columns(masked=pl.col("n_steps") - pl.col("n_trained_steps")).filter(pl.col("masked") > 0)
    lines["masked"] = (len(masked), int(masked["masked"].sum()), int(out["n_masked_tokens"].sum()))
    lines["trained"] = _sums(out, "n_trained_steps", "n_trained_tokens")
    middle = sorted(lines.keys() - {*_FIRST, *_LAST})
    return [{"line": line, **dict(zip(_COUNTED, lines[line], strict=True))} for line in (*_FIRST, *middle, *_LAST)]


def dataset_hash(choices: pl.DataFrame) -> str:
    """The identity of what is trained on: sha256 over (trajectory, hash of its rows), sorted by trajectory."""
    rows = choices.filter(pl.col("rows_hash").is_not_null()).sort("trajectory_id")
    return _hash_of(rows.select("trajectory_id", "rows_hash").iter_rows())


def content_hash(rows: pa.Table) -> str:
    """The same hash, from the rows of a dataset themselves."""
    ordered = rows.sort_by([("trajectory_id", "ascending"), ("row_id", "ascending")])
    every = (row for batch in ordered.to_batches(max_chunksize=500) for row in batch.to_pylist())
    return _hash_of(
        (name, _rows_hash(made)) for name, made in groupby(every, key=lambda row: str(row["trajectory_id"]))
    )


def frame(choices: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Choices as a frame with the columns of the table."""
    return pl.DataFrame(pa.Table.from_pylist(choices, CHOICES.schema))


def _rows_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    hasher = hashlib.sha256()
    for row in rows:
        # Tokens hold no nulls to drop, and canonical JSON looks at every one of them.
        hasher.update(canonical({k: v for k, v in row.items() if k not in _TOKENS}))
        hasher.update(orjson.dumps([row.get(k) for k in _TOKENS]))
        hasher.update(b"\n")
    return hasher.hexdigest()


def _hash_of(pairs: Iterable[tuple[str, str]]) -> str:
    hasher = hashlib.sha256()
    for pair in pairs:
        hasher.update(canonical(pair))
        hasher.update(b"\n")
    return hasher.hexdigest()


def _sums(rows: pl.DataFrame, steps: str, tokens: str) -> tuple[int, int, int]:
    return len(rows), int(rows[steps].sum()), int(rows[tokens].sum())
