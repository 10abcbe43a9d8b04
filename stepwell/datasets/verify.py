"""Proof that the tokens trained on are the steps chosen: decode the trained spans and compare, with the row and the log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.datasets.critiques import NO, YES
from stepwell.datasets.methods import CRITICS, UNTAUGHT
from stepwell.errors import RenderError
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rendering import IGNORE, Renderer
from stepwell.rendering.renderer import runs
from stepwell.rendering.template import missing
from stepwell.shuffle import whole

_REJECTED = ("rejected", "rejected_ids", "rejected_labels")


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
    columns = ["row_id", "method", "messages", "weights", "input_ids", "labels", *_REJECTED]
    for row in _each(rows.select(columns)):
        result.n_rows += 1
        found = _of_prompt(row, renderer) if row["method"] in UNTAUGHT else _problems(row, renderer, result)
        result.problems += [f"row {row['row_id']}: {p}" for p in found]
        if row["rejected"] is not None:
            result.problems += [f"row {row['row_id']}, rejected: {p}" for p in _problems(_worse(row), renderer, result)]
    if lake is not None:
        result.problems += _unsaid(rows, lake)
    return result


def _unsaid(rows: pa.Table, lake: Lake) -> Iterable[str]:
    """Trained replies, and rejected ones, that are not what their event says; some trajectories at a time."""
    ids = sorted(pc.unique(rows.column("trajectory_id")).to_pylist())
    wanted = ["row_id", "trajectory_id", "messages", "weights", "event_ids", "mask_event_ids", "rejected"]
    columns = ["event_id", "trajectory_id", "kind", "action", "label", "verdict", "outcome", "extra"]
    rows, lost = rows.select(wanted), set(ids)
    for events in whole(lake, EventLog(lake).version or 0, ids, columns):
        streams = pc.unique(events.column("trajectory_id"))
        lost -= set(streams.to_pylist())
        kept = events.filter(pc.is_in(events.column("kind"), pa.array(["action", "label", "verdict", "outcome"])))
        said = {r["event_id"]: r for r in kept.to_pylist()}
        yield from _differing(rows.filter(pc.is_in(rows.column("trajectory_id"), streams)), said)
    yield from _differing(rows.filter(pc.is_in(rows.column("trajectory_id"), pa.array(sorted(lost), pa.string()))), {})


def _differing(rows: pa.Table, said: dict[str, dict[str, Any]]) -> Iterable[str]:
    trained = []
    for row in _each(rows):
        replies = zip(_replies(json.loads(row["messages"])), row["weights"], row["event_ids"], strict=True)
        trained += [(row["row_id"], [event], _spoken(reply)) for reply, weight, event in replies if weight]
        worse = json.loads(row["rejected"] or "[]")
        trained += [(row["row_id"], row["mask_event_ids"], _spoken(reply)) for reply in worse]
    return [
        f"row {row}: {text!r} is not what event {' or '.join(of)} says"
        for row, of, text in trained
        if not any(e in said and _says(said[e], text) for e in of)
    ]


def _each(rows: pa.Table) -> Iterable[dict[str, Any]]:
    """Rows as dictionaries, few at a time: tokens as Python numbers take ten times the memory."""
    for batch in rows.to_batches(max_chunksize=100):
        yield from batch.to_pylist()


def _spoken(reply: dict[str, Any]) -> tuple[str, list[Any]]:
    return reply["content"] or "", reply.get("tool_calls") or []


def _says(event: dict[str, Any], reply: tuple[str, list[Any]]) -> bool:
    """Whether a reply is what an event says.

    A verdict without words, or one that had to be repaired, may be said in the form of its grammar; white space aside.
    """
    payload = event[event["kind"]]
    if event["kind"] == "outcome":
        return reply == (YES if payload["resolved"] else NO, [])
    if event["kind"] == "verdict":
        raw = payload["raw"]
        return raw is None or payload["parse_status"] == "repaired" or raw.split() == reply[0].split()
    return reply == (payload["text"] or "", _calls(event))


def _worse(row: dict[str, Any]) -> dict[str, Any]:
    """A pair's row as if its rejected reply were the one to learn."""
    messages = json.dumps([*json.loads(row["messages"])[:-1], *json.loads(row["rejected"])])
    return {**row, "messages": messages, "input_ids": row["rejected_ids"], "labels": row["rejected_labels"]}


def _of_prompt(row: dict[str, Any], renderer: Renderer) -> Iterable[str]:
    """Problems of a row that is a prompt alone."""
    if row["input_ids"] != renderer.prompt_ids(json.loads(row["messages"])):
        yield "the tokens are not those of the prompt a policy is sent"
    if row["labels"] != [IGNORE] * len(row["input_ids"]) or any(row["weights"]):
        yield "a prompt has something in the loss"


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
    one = row["method"] in ("dagger", *CRITICS) and not any(weights[:-1])
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
