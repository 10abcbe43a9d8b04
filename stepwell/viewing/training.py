"""What datasets train on of a trajectory, down to the token where the dataset's tokenizer is on this machine.

Belongs here: reading rows of datasets for a page. Does not belong here: making or checking them (`datasets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import pyarrow.compute as pc

from stepwell.errors import RenderError, StepwellError
from stepwell.lake import Lake
from stepwell.rendering import IGNORE, Renderer
from stepwell.rendering.pieces import pieces
from stepwell.seals import seal_of

_COLUMNS = (
    "row_id", "method", "split", "messages", "steps", "weights", "event_ids", "input_ids", "labels", "n_tokens",
    "n_trained_tokens",
)  # fmt: skip
MOST_TOKENS = 400_000
"""Tokens of one dataset's rows that are decoded for a page; of longer ones the weights alone are shown."""


def trained(lake: Lake, trajectory: str, tokens: bool = True) -> list[dict[str, Any]]:
    """One entry a dataset with rows of this trajectory: its name, version, models trained on it, and rows.

    A row has `replies`: event, step and weight, and where tokens can be shown their texts (`tokens`) and one character for
    each (`kinds`): t in the loss, m left out of it. `note` says why there are none.
    """
    found = []
    models = lake.read("models", columns=["name", "dataset"]).to_pylist()
    for name in lake.dataset_names():
        handle = lake.table(name)
        if handle is None:
            continue
        where = pc.field("trajectory_id") == trajectory
        rows = lake.dataset(handle).to_table(list(_COLUMNS), filter=where).sort_by("row_id").to_pylist()
        if not rows:
            continue
        renderer: Renderer | str = "tokens were not asked for"
        if tokens:
            many = sum(row["n_tokens"] for row in rows) > MOST_TOKENS
            renderer = (
                f"rows have more than {MOST_TOKENS:,} tokens" if many else _renderer(lake, name, handle.version())
            )
        entry = {
            "name": name, "version": handle.version(), "note": renderer if isinstance(renderer, str) else None,
            "models": sorted({m["name"] for m in models if m["dataset"] == name}),
        }  # fmt: skip
        found.append(entry | {"rows": [_row(row, renderer) for row in rows]})
    return found


def _renderer(lake: Lake, table: str, version: int) -> Renderer | str:
    """The renderer a dataset was made with, or why there is none."""
    found = seal_of(lake, table, version)
    sealed = found[1] if found else {}
    base = sealed.get("base_model")
    if not base or not Path(base).is_dir():
        return f"the tokenizer's directory ({base or 'not recorded'}) is not here"
    try:
        renderer = _loaded(str(Path(base).resolve()), (Path(base) / "tokenizer.json").stat().st_mtime_ns)
    except (StepwellError, OSError) as error:
        return str(error)
    hashes = {k: sealed.get(k) for k in ("tokenizer_hash", "template_hash")}
    wrong = [k for k, v in hashes.items() if v is not None and renderer.hashes[k] != v]
    return f"{base} is not what the dataset was made with: {', '.join(wrong)} differs" if wrong else renderer


@lru_cache(maxsize=4)
def _loaded(directory: str, changed: int) -> Renderer:
    return Renderer.load(directory)


def _row(row: Mapping[str, Any], renderer: Renderer | str) -> dict[str, Any]:
    replies = [
        {"event": event, "step": step, "weight": weight}
        for event, step, weight in zip(row["event_ids"], row["steps"], row["weights"], strict=True)
    ]
    told = {k: row[k] for k in ("row_id", "method", "split", "n_tokens", "n_trained_tokens")}
    if isinstance(renderer, str):
        return told | {"replies": replies}
    try:
        spans = renderer.encode(orjson.loads(row["messages"]), row["weights"]).spans
    except RenderError as error:
        return told | {"replies": replies, "note": str(error)}
    ids, labels = row["input_ids"], row["labels"]
    for reply, (start, end) in zip(replies, spans, strict=True):
        parts = list(pieces(ids[start:end], renderer))
        kinds = ("t" if any(x != IGNORE for x in labels[start + a : start + b]) else "m" for a, b, _ in parts)
        reply |= {"tokens": [text for _, _, text in parts], "kinds": "".join(kinds)}
    inside = sum(x != IGNORE for start, end in spans for x in labels[start:end])
    return told | {"replies": replies, "n_outside": sum(x != IGNORE for x in labels) - inside}
