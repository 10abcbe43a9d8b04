"""Building a dataset: replay the log at one version, choose, render, count what was left out, seal.

The same recipe at the same `events` version gives the same rows in the same order and so the same content hash.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.datasets import DATASET
from schemas.kinds import UNFINISHED
from stepwell.conversation import Conversation
from stepwell.datasets.cases import COLUMNS, Case, Dropped, Found, Sample, found
from stepwell.datasets.methods import PER_TURN, method, repeats
from stepwell.errors import RecipeError, RenderError
from stepwell.fold import fold_trajectories
from stepwell.ids import canonical, digest
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.recipe import DatasetSettings, Recipe
from stepwell.rendering import Renderer
from stepwell.verdicts import excluded

_ALSO = ("occurred_at", "recorded_at", "task", "start", "end", "outcome", "verdict")


@dataclass
class Funnel:
    """What went in, what was left out and why, what came out: (trajectories, steps, tokens) per line."""

    lines: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, line: str, *, trajectories: int = 0, steps: int = 0, tokens: int = 0) -> None:
        """Add to a line of the funnel."""
        self.lines.setdefault(line, Counter()).update(trajectories=trajectories, steps=steps, tokens=tokens)

    def rows(self) -> list[dict[str, Any]]:
        """Lines in the order of the flow: in, what was dropped, out, what of it is trained."""
        first, last = ["in"], ["out", "masked", "trained"]
        middle = sorted(set(self.lines) - {*first, *last})
        return [{"line": k, **self.lines.get(k, Counter())} for k in [*first, *middle, *last]]


@dataclass(frozen=True)
class Built:
    """A sealed dataset: its table and version in the lake, content hash, counts and funnel."""

    table: str
    version: int
    hash: str
    events_version: int
    n_rows: int
    n_tokens: int
    n_trained_tokens: int
    masked_share: float
    funnel: list[dict[str, Any]]
    metadata: dict[str, str]


def build(
    lake: Lake,
    recipe: Recipe,
    renderer: Renderer,
    mask_rule: str,
    events_version: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Derive, render and seal the dataset of a recipe; `mask_rule` names the mask events that count.

    Raises RecipeError when the recipe has no source or dataset, or nothing is left to train on.
    """
    if recipe.source is None or recipe.dataset is None:
        raise RecipeError(f"recipe {recipe.name!r} has no `source` or no `dataset`; add both to build a dataset.")
    log = EventLog(lake)
    version = log.version if events_version is None else events_version
    if version is None:
        raise RecipeError(f"the lake {lake.uri!r} has no events; import or roll out trajectories first.")
    where = pc.field("corpus").isin(list(recipe.source.corpora))
    ids = sorted(set(lake.read("events", version, ["trajectory_id"], where).column(0).to_pylist()))
    funnel = Funnel()
    parts: list[pa.Table] = []
    done = 0
    for events in log.batches(ids, version, columns=[*COLUMNS, *_ALSO]):
        rows = _derive(events, recipe, renderer, mask_rule, funnel)
        if rows:
            parts.append(pa.Table.from_pylist(rows, DATASET.schema))
        done += len(set(events.column("trajectory_id").to_pylist()))
        if progress:
            progress(done, len(ids))
    if not parts:
        raise RecipeError(f"recipe {recipe.name!r} leaves nothing to train on: {funnel.rows()}. Widen `source`.")
    table = pa.concat_tables(parts).sort_by("row_id")
    return _seal(lake, recipe, renderer, table, version, funnel)


def _derive(
    events: pa.Table, recipe: Recipe, renderer: Renderer, mask_rule: str, funnel: Funnel
) -> list[dict[str, Any]]:
    assert recipe.source is not None
    assert recipe.dataset is not None
    folded = pl.DataFrame(fold_trajectories(events))
    kept = folded.filter(pl.sql_expr(recipe.source.where)) if len(folded) else folded
    facts = {
        r["trajectory_id"]: r for r in kept.select("trajectory_id", "resolved", "task_id", "exit_status").to_dicts()
    }
    out = {} if recipe.source.exclude is None else excluded(events, recipe.source.exclude)
    tools = _tools(events)
    rows: list[dict[str, Any]] = []
    for one in found(events, recipe.dataset.method in PER_TURN):
        chat = one.chat
        funnel.count("in", trajectories=1, steps=len(chat.steps))
        why = out.get(chat.trajectory_id)
        chosen = Dropped(why) if why else _chosen(one, facts.get(chat.trajectory_id), recipe.dataset, mask_rule)
        if isinstance(chosen, Dropped):
            funnel.count(f"dropped: {chosen.reason}", trajectories=1, steps=len(chat.steps))
            continue
        task = facts[chat.trajectory_id]["task_id"] or ""
        offered = tools.get(chat.trajectory_id)
        made = [_row(_offering(sample, offered), chat, task, recipe, renderer) for sample in chosen]
        kept_rows = [row for row in made if not isinstance(row, Dropped)]
        left = [(s, row.reason) for s, row in zip(chosen, made, strict=True) if isinstance(row, Dropped)]
        if not kept_rows:
            funnel.count(f"dropped: {left[0][1]}", trajectories=1, steps=len(chat.steps))
            continue
        for sample, reason in left:
            funnel.count(f"part dropped: {reason}", steps=int(sum(sample.weights)))
        trained = {s for r in kept_rows for s, w in zip(r["steps"], r["weights"], strict=True) if w}
        funnel.count("out", trajectories=1, steps=len(chat.steps), tokens=sum(r["n_tokens"] for r in kept_rows))
        funnel.count("masked", steps=len(chat.steps) - len(trained))
        funnel.count("trained", steps=len(trained), tokens=sum(r["n_trained_tokens"] for r in kept_rows))
        rows += kept_rows
    return rows


def _chosen(
    one: Found, facts: dict[str, Any] | None, settings: DatasetSettings, mask_rule: str
) -> list[Sample] | Dropped:
    """What the method makes of a trajectory that may be learnt from."""
    if facts is None:
        return Dropped("filtered by source.where")
    if not one.chat.steps:
        return Dropped("no recorded steps")
    if facts["exit_status"] in UNFINISHED:
        return Dropped("not finished: it says nothing about the policy")
    case = Case(one.chat, facts["resolved"], mask_rule, settings, one.interrupted, one.prompts, one.labels)
    if settings.max_repeats is not None and repeats(case) > settings.max_repeats:
        return Dropped(f"says the same more than {settings.max_repeats} times in a row")
    return method(settings.method)(case)


def _tools(events: pa.Table) -> dict[str, str]:
    """Tools offered, as a JSON string, of the trajectories that record any."""
    told = live(events.filter(pc.is_in(events.column("kind"), pa.array(["instruction", "retraction"]))))
    rows = told.select(["trajectory_id", "instruction"]).to_pylist()
    return {r["trajectory_id"]: t for r in reversed(rows) if (t := (r["instruction"] or {}).get("tools"))}


def _offering(sample: Sample, tools: str | None) -> Sample:
    """A sample whose first message carries the tools offered, where the renderer finds them."""
    if tools is None:
        return sample
    return replace(sample, messages=[{**sample.messages[0], "tools": tools}, *sample.messages[1:]])


def _row(sample: Sample, chat: Conversation, task: str, recipe: Recipe, renderer: Renderer) -> dict[str, Any] | Dropped:
    assert recipe.dataset is not None
    try:
        rendered = renderer.encode(sample.messages, sample.weights)
    except RenderError as error:
        return Dropped(str(error).partition(":")[0])
    if len(rendered.input_ids) > recipe.dataset.max_length:
        return Dropped(f"longer than {recipe.dataset.max_length} tokens")
    if not rendered.n_trained:
        return Dropped("no token to train")
    return {
        "row_id": digest(recipe.dataset.method, chat.trajectory_id, sample.weights, sample.event_ids),
        "recipe": recipe.name,
        "method": recipe.dataset.method,
        "split": "held_out" if _share(task or chat.trajectory_id) < recipe.dataset.held_out else "train",
        "trajectory_id": chat.trajectory_id,
        "corpus": chat.corpus,
        "task_id": task,
        "messages": canonical(sample.messages).decode("utf-8"),
        "steps": sample.steps,
        "weights": sample.weights,
        "event_ids": sample.event_ids,
        "mask_event_ids": sample.evidence,
        "input_ids": rendered.input_ids,
        "labels": rendered.labels,
        "n_tokens": len(rendered.input_ids),
        "n_trained_tokens": rendered.n_trained,
        "n_masked_steps": sample.weights.count(0.0),
    }


def _share(task: str) -> float:
    """A number in [0, 1) that depends on the task alone: all attempts at a task fall into the same split."""
    return int(digest("split", task)[:8], 16) / 2**32


def _seal(lake: Lake, recipe: Recipe, renderer: Renderer, rows: pa.Table, version: int, funnel: Funnel) -> Built:
    sealed = content_hash(rows)
    trained = sum(rows.column("n_trained_tokens").to_pylist())
    n_steps = sum(len(s) for s in rows.column("steps").to_pylist())
    metadata = {
        "dataset_hash": sealed,
        "events_version": str(version),
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
        "base_model": recipe.base_model,
        "source": canonical(recipe.source and recipe.source.model_dump(mode="json")).decode(),
        "settings": canonical(recipe.dataset and recipe.dataset.model_dump(mode="json")).decode(),
        "dagger": canonical(recipe.dagger and recipe.dagger.model_dump(mode="json")).decode(),
        "funnel": canonical(funnel.rows()).decode(),
        **renderer.hashes,
    }
    current = seal_of(lake, recipe.dataset_table)
    if current is not None and all(current[1].get(k) == metadata[k] for k in ("dataset_hash", "recipe_hash")):
        table_version, metadata = current
    else:
        table_version = lake.replace(recipe.dataset_table, rows, metadata)
    return Built(
        table=recipe.dataset_table,
        version=table_version,
        hash=sealed,
        events_version=int(metadata["events_version"]),
        n_rows=len(rows),
        n_tokens=sum(rows.column("n_tokens").to_pylist()),
        n_trained_tokens=trained,
        masked_share=sum(rows.column("n_masked_steps").to_pylist()) / max(n_steps, 1),
        funnel=funnel.rows(),
        metadata=metadata,
    )


def content_hash(rows: pa.Table) -> str:
    """sha256 over the canonical JSON of every row in row_id order: the identity of what is trained on."""
    hasher = hashlib.sha256()
    for batch in rows.sort_by("row_id").to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            hasher.update(canonical(row))
            hasher.update(b"\n")
    return hasher.hexdigest()


def seal_of(lake: Lake, table: str, version: int | None = None) -> tuple[int, dict[str, str]] | None:
    """(version, seal) of a dataset table, as recorded in the commit that wrote it; None when there is none."""
    handle = lake.table(table)
    wanted = (handle.version() if handle else 0) if version is None else version
    if handle is None or wanted == 0:
        return None
    # A handle opened at an older version numbers its history wrongly, so the current one is asked.
    commit = next(c for c in handle.history() if c["version"] == wanted)
    return wanted, {k: v for k, v in commit.items() if isinstance(v, str)}
