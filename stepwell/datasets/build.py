"""Building a dataset: replay what changed in the log, choose, render, count what was left out, seal.

The same recipe at the same `events` version gives the same rows and so the same content hash, whether it is built from
nothing or goes on from an earlier build (`incremental`). Rows go to disk as they are made: memory does not grow with the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.datasets import DATASET
from schemas.trajectories import TRAJECTORIES
from stepwell.asking import Asker
from stepwell.conditions import Condition
from stepwell.conversation import Message
from stepwell.datasets.across import COLUMNS as LIMITED
from stepwell.datasets.across import limited, thinned
from stepwell.datasets.cases import COLUMNS, OF_CRITICS, Dropped, Row, Sample, found
from stepwell.datasets.choices import content_hash as content_hash
from stepwell.datasets.choices import frame, funnel, kept, left_out, parts_of
from stepwell.datasets.incremental import Curated, curated_as, derivation_of, plan
from stepwell.datasets.methods import ASKS, CRITICS, PER_TURN
from stepwell.datasets.rows import chosen_of, offering, row_of
from stepwell.datasets.sealing import Built as Built
from stepwell.datasets.sealing import Change, seal
from stepwell.errors import RecipeError, RenderError
from stepwell.fold import fold_trajectories
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer
from stepwell.shuffle import Spill, ids_of, whole
from stepwell.verdicts import excluded

_FACTS = ("trajectory_id", "resolved", "task_id", "exit_status", "agent", "model")
_ALSO = ("occurred_at", "recorded_at", "task", "start", "end", "outcome", "verdict")


def build(
    lake: Lake,
    recipe: Recipe,
    renderer: Renderer,
    mask_rule: str,
    events_version: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    chosen: pl.DataFrame | None = None,
    asker: Asker | None = None,
) -> Built:
    """Derive, render and seal the dataset of a recipe; `mask_rule` names the mask events that count.

    `chosen` is what curation made of the corpora: `trajectory_id`, `dropped` (null: kept, else the reason) and `split`
    (`train` or `held_out`); without it nothing is left out by curation and a task alone decides its split. `progress` is
    told how many of the trajectories to derive are done. `asker` makes the requests of critics again, for methods that
    teach one. Raises RecipeError when the recipe has no source or dataset, needs an `asker` and there is none, or nothing
    is left to train on, LakeError when another process builds the same dataset meanwhile.
    """
    if recipe.source is None or recipe.dataset is None:
        raise RecipeError(f"recipe {recipe.name!r} has no `source` or no `dataset`; add both to build a dataset.")
    asker = asker if recipe.dataset.method in CRITICS else None
    if asker is None and recipe.dataset.method in CRITICS:
        act = "give build an `asker`: stepwell.critics.asked.Asker(recipe.dataset.critiques)."
        raise RecipeError(f"method {recipe.dataset.method!r} needs the requests of critics made again; {act}")
    version = EventLog(lake).version if events_version is None else events_version
    if version is None:
        raise RecipeError(f"the lake {lake.uri!r} has no events; import or roll out trajectories first.")
    curated = {} if chosen is None else {r["trajectory_id"]: r for r in chosen.to_dicts()}
    work = Work(recipe, renderer, mask_rule, curated, asker)
    derivation = derivation_of(recipe, renderer, mask_rule)
    derivation = derivation if asker is None else digest(derivation, asker.identity)
    if limited(recipe.dataset):
        work = replace(work, gone=_beyond(lake, work, version))
        derivation = digest(derivation, sorted(work.gone.items()))
    todo = plan(lake, recipe, derivation, version, curated)
    with closing(Spill(DATASET.schema)) as rows:
        choices = pl.concat([todo.kept, *_derived(lake, work, todo.events_version, todo.ids, rows, progress)])
        if not choices["n_rows"].sum():
            told = "; ".join(f"{line['line']} {line['trajectories']}" for line in funnel(choices))
            raise RecipeError(
                f"recipe {recipe.name!r} leaves nothing to train on. Trajectories: {told}. Widen `source`."
            )
        made_from = {"events_version": str(version), "derivation": todo.derivation}
        change = Change(rows.reader(), todo.ids, todo.gone, todo.expected)
        return seal(lake, recipe, renderer, choices.sort("trajectory_id"), made_from, change)


@dataclass(frozen=True)
class Work:
    """What turns events into rows; the rows of `gone` are left out for the reason given."""

    recipe: Recipe
    renderer: Renderer
    mask_rule: str
    curated: Curated
    asker: Asker | None = None
    gone: Mapping[str, str] = field(default_factory=dict)


def _beyond(lake: Lake, work: Work, version: int) -> dict[str, str]:
    """Rows that limits over all rows leave out: for these, everything is derived once to see which rows there are."""
    assert work.recipe.source is not None
    assert work.recipe.dataset is not None
    with closing(Spill(DATASET.schema)) as rows:
        _derived(lake, work, version, ids_of(lake, version, work.recipe.source.corpora), rows, None)
        batches = (batch.select(list(LIMITED)).to_pylist() for batch in rows.reader())
        return thinned((row for batch in batches for row in batch), work.recipe.dataset)


def _derived(
    lake: Lake, work: Work, version: int, ids: Sequence[str], rows: Spill, progress: Callable[[int, int], None] | None
) -> list[pl.DataFrame]:
    """Derive trajectories at a version: rows into `rows`, choices returned."""
    made = []
    done = 0
    columns = list(dict.fromkeys([*(OF_CRITICS if work.asker else COLUMNS), *_ALSO]))
    for events in whole(lake, version, ids, columns):
        choices = _derive(events, work, rows)
        made.append(frame(choices))
        done += len(choices)
        if progress:
            progress(done, len(ids))
    return made


def _derive(events: pa.Table, work: Work, into: Spill) -> list[dict[str, Any]]:
    recipe, renderer = work.recipe, work.renderer
    assert recipe.source is not None
    assert recipe.dataset is not None
    folded = pl.DataFrame(fold_trajectories(events))
    alone = bool(len(folded)) and not work.curated
    asked = alone and recipe.source.where != "true"
    where = Condition(recipe.source.where, TRAJECTORIES, "source.where") if asked else None
    wanted = folded if where is None else folded.filter(where.holds(folded))
    facts = {r["trajectory_id"]: r for r in wanted.select(_FACTS).to_dicts()}
    out = excluded(events, recipe.source.exclude) if alone and recipe.source.exclude else {}
    tools = _tools(events)
    choices = []
    method = recipe.dataset.method
    for one in found(events, method in PER_TURN, work.asker, ASKS.get(method)):
        chat = one.chat
        name = chat.trajectory_id
        said, offered = work.curated.get(name), tools.get(name)
        about: dict[str, Any] = {"trajectory_id": name, "corpus": chat.corpus, "curated": curated_as(said)}
        about["n_steps"] = len(chat.steps)
        why = (said or {}).get("dropped") or out.get(name)
        chosen = Dropped(why) if why else chosen_of(one, facts.get(name), recipe, work.mask_rule)
        if work.asker is not None:
            split = (said or {}).get("split")
            replies: Sequence[Sample | Dropped] = [chosen] if isinstance(chosen, Dropped) else chosen
            made = [
                p if isinstance(p, Dropped) else row_of(p, chat, facts[name], None, recipe, renderer, split)
                for p in replies
            ]
            choices.append(_of_critic(about, made, isinstance(chosen, Dropped), work.gone, into))
            continue
        if isinstance(chosen, Dropped):
            about["n_tokens"] = _tokens(chat.messages, offered, renderer)
            choices.append(left_out(about, chosen.reason))
            continue
        split = (said or {}).get("split")
        samples = [s for s in chosen if isinstance(s, Sample)]
        made = [_within(row_of(s, chat, facts[name], offered, recipe, renderer, split), work.gone) for s in samples]
        rows = [row for row in made if not isinstance(row, Dropped)]
        left = [(row.reason, s) for s, row in zip(samples, made, strict=True) if isinstance(row, Dropped)]
        alone = len(rows) == len(samples) == 1 and samples[0].messages is chat.messages
        about["n_tokens"] = rows[0]["n_tokens"] if alone else _tokens(chat.messages, offered, renderer)
        if not rows:
            choices.append(left_out(about, left[0][0]))
            continue
        masked = sum(row.pop("n_masked_tokens") for row in rows)
        parts = parts_of((reason, int(sum(s.weights)), _tokens(s.messages, offered, renderer)) for reason, s in left)
        table = pa.Table.from_pylist(rows, DATASET.schema)
        choices.append(kept(about, table, masked, parts))
        into.write(table)
    return choices


def _tokens(messages: list[Message], tools: str | None, renderer: Renderer) -> int:
    """Tokens of a conversation; 0 where it cannot be rendered."""
    n = sum(m["role"] == "assistant" and not m.get("is_demo") for m in messages)
    try:
        return len(renderer.encode(offering(messages, tools), [0.0] * n).input_ids) if messages else 0
    except RenderError:
        return 0


def _within(row: Row | Dropped, gone: Mapping[str, str]) -> Row | Dropped:
    """A row, unless a limit over all rows leaves it out."""
    return Dropped(gone[row["row_id"]]) if not isinstance(row, Dropped) and row["row_id"] in gone else row


def _of_critic(
    about: dict[str, Any], made: Sequence[Row | Dropped], whole: bool, gone: Mapping[str, str], into: Spill
) -> dict[str, Any]:
    """The choice of a trajectory that a critic learns from: its steps are the replies learnt, its parts those that are not.

    `whole`: the trajectory was left out before its replies were looked at.
    """
    limits = [_within(row, gone) for row in made]
    rows, reasons = (
        [r for r in limits if not isinstance(r, Dropped)],
        [r.reason for r in limits if isinstance(r, Dropped)],
    )
    about |= {"n_steps": len(rows), "n_tokens": sum(row["n_tokens"] for row in rows)}
    parts = [] if whole else parts_of((reason, 1, 0) for reason in reasons)
    if not rows:
        return left_out({**about, "parts": parts}, reasons[0] if len(set(reasons)) == 1 else "no reply is left")
    table = pa.Table.from_pylist(
        [{k: v for k, v in row.items() if k != "n_masked_tokens"} for row in rows], DATASET.schema
    )
    into.write(table)
    return {**kept(about, table, 0, parts), "n_trained_steps": sum(any(row["weights"]) for row in rows)}


def _tools(events: pa.Table) -> dict[str, str]:
    """Tools offered, as a JSON string, of the trajectories that record any."""
    told = live(events.filter(pc.is_in(events.column("kind"), pa.array(["instruction", "retraction"]))))
    rows = told.select(["trajectory_id", "instruction"]).to_pylist()
    return {r["trajectory_id"]: t for r in reversed(rows) if (t := (r["instruction"] or {}).get("tools"))}
