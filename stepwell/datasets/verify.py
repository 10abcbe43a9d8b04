"""Proof that the tokens trained on are the steps chosen: decode the trained spans and compare, with the row and the log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.errors import RenderError
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rendering import IGNORE, Renderer
from stepwell.rendering.renderer import runs
from stepwell.rendering.template import missing


@dataclass
class Verified:
    """Counts of what was checked and every problem found; `ok` when there is none.

    `hashes` are those of the renderer the rows were held against: tokenizer, template and version.
    """

    n_rows: int = 0
    n_spans: int = 0
    problems: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every row passed."""
        return self.n_rows > 0 and not self.problems


def verify(rows: pa.Table, renderer: Renderer, lake: Lake | None = None) -> Verified:
    """Check every row of a dataset against its messages, steps and weights, and, with the lake, against its events."""
    result = Verified(hashes=renderer.hashes)
    columns = ["row_id", "method", "messages", "weights", "input_ids", "labels"]
    for row in rows.select(columns).to_pylist():
        result.n_rows += 1
        result.problems += [f"row {row['row_id']}: {p}" for p in _problems(row, renderer, result)]
    if lake is not None:
        result.problems += _unsaid(rows, lake)
    return result


def _unsaid(rows: pa.Table, lake: Lake) -> Iterable[str]:
    """Trained replies that are not what their event says."""
    trained = [
        (row["row_id"], event, (reply["content"] or "", reply.get("tool_calls") or []))
        for row in rows.select(["row_id", "messages", "weights", "event_ids"]).to_pylist()
        for reply, weight, event in zip(
            _replies(json.loads(row["messages"])), row["weights"], row["event_ids"], strict=True
        )
        if weight
    ]
    ids = sorted(set(rows.column("trajectory_id").to_pylist()))
    columns = ["event_id", "kind", "action", "label", "extra"]
    said: dict[str, tuple[str, list[Any]]] = {}
    for events in EventLog(lake).batches(ids, columns=columns):
        kept = events.filter(pc.is_in(events.column("kind"), pa.array(["action", "label"])))
        said |= {r["event_id"]: (r[r["kind"]]["text"] or "", _calls(r)) for r in kept.to_pylist()}
    return [f"row {row}: {text!r} is not what event {e} says" for row, e, text in trained if said.get(e) != text]


def _calls(event: dict[str, Any]) -> list[Any]:
    """Tool calls of an action or a label."""
    if event["kind"] == "action":
        return list(json.loads(event["action"]["tool_calls"] or "[]"))
    return list(json.loads(event["extra"] or "{}").get("tool_calls") or [])


def _problems(row: dict[str, Any], renderer: Renderer, result: Verified) -> Iterable[str]:
    ids, labels, weights = row["input_ids"], row["labels"], row["weights"]
    messages = json.loads(row["messages"])
    if len(ids) != len(labels):
        yield f"{len(ids)} ids but {len(labels)} labels"
        return
    if any(label not in (IGNORE, token) for token, label in zip(ids, labels, strict=True)):
        yield "a label is neither -100 nor its token"
    if not renderer.decodes(ids, messages):
        yield "the tokens do not decode to the rendered conversation"
    try:
        if renderer.encode(messages, weights).input_ids != ids:
            yield "rendered again, the conversation has other tokens"
    except RenderError as error:
        yield f"the conversation cannot be rendered: {error}"
    chosen = [m for m, w in zip(_replies(messages), weights, strict=True) if w]
    trained = runs(labels)
    result.n_spans += len(trained)
    decoded = [renderer.tokenizer.decode(run[:-1], skip_special_tokens=False) for run in trained]
    closings = {renderer.tokenizer.id_to_token(run[-1]) for run in trained}
    one = row["method"] == "dagger" and not any(weights[:-1])
    if one and ids[: _first(labels)] != renderer.prompt_ids(messages[:-1]):
        yield "the tokens before the reply are not those of the prompt a policy is sent"
    pairs = zip(chosen, decoded, strict=False)
    if len(decoded) != len(chosen) or any(missing(renderer.normal(m), d) for m, d in pairs):
        yield f"trained spans {decoded[:2]!r}... are not the chosen replies {[m['content'] for m in chosen[:2]]!r}..."
    if len(closings) > 1 or not closings <= {t.content for t in renderer.tokenizer.get_added_tokens_decoder().values()}:
        yield f"replies do not end in one closing token: {sorted(map(str, closings))}"


def _first(labels: list[int]) -> int:
    """Place of the first trained token."""
    return next((i for i, label in enumerate(labels) if label != IGNORE), len(labels))


def _replies(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [m for m in messages if m["role"] == "assistant" and not m.get("is_demo")]
