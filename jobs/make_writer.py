"""Making the small model that writes, revises and judges the embedded problems: scripted lessons, then fine-tuning.

    python -m jobs.make_writer --lake ./lessons --output models/writer

Lessons are the loops of the recipe's `revision`, played on train problems by the scripted writer and critics. In the loss:
every first solution and every revision as the scripted writer gave it, mistakes included, and what scripted critics said,
asked for with the prompt of the arm's `settings`. The dataset is sealed like any other and trained by `jobs.train_policy`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import registry
from jobs.report import Reporter, command, reporter
from jobs.train_policy import train
from schemas.datasets import DATASET
from stepwell.chat import Message
from stepwell.cli.reviewing import KINDS, requested
from stepwell.critics import prompts
from stepwell.critics.context import Request
from stepwell.critics.model_critic import ModelCritic
from stepwell.datasets.build import content_hash
from stepwell.errors import RecipeError
from stepwell.ids import canonical, digest, fraction
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe, load
from stepwell.rendering import Renderer
from stepwell.rollout.collect import now_and_then
from stepwell.rollout.revision import revise
from stepwell.rollout.solving import block, rebuilt
from stepwell.settings import Revision

TAUGHT_BY = "oracle-critic@1"
"""Policy of the verdicts that are lessons in judging."""


def lessons(events: pa.Table, critic: ModelCritic) -> Iterator[tuple[str, list[Message]]]:
    """Events of whole trees in canonical order -> (event id, conversation that ends in the reply to learn), each once."""
    rows = {row["event_id"]: row for row in events.select(["event_id", "kind", "policy", "caused_by", "attempt", "verdict"])
            .to_pylist() if row["kind"] in ("attempt", "verdict")}  # fmt: skip
    seen: set[str] = set()

    def new(event: str, messages: Sequence[Message], reply: str) -> Iterator[tuple[str, list[Message]]]:
        whole = [*messages, {"role": "assistant", "content": reply}]
        if (known := digest(whole)) not in seen:
            seen.add(known)
            yield event, whole

    for event, messages, _ in rebuilt(events):
        yield from new(event, messages, block(rows[event]["attempt"]["code"]))
    shown = events.filter(pa.compute.is_in(events.column("kind"), pa.array(KINDS)))
    trees = {
        t: shown.filter(pa.compute.equal(shown.column("trajectory_id"), t))
        for t in shown.column("trajectory_id").unique().to_pylist()
    }
    of = dict(zip(shown.column("event_id").to_pylist(), shown.column("trajectory_id").to_pylist(), strict=True))
    for event, row in rows.items():
        if row["kind"] == "verdict" and row["policy"] == TAUGHT_BY:
            found = requested(critic, trees[of[row["caused_by"]]], row["caused_by"], None)
            if not isinstance(found, str) and isinstance(found[1].request, Request):
                yield from new(event, found[1].request.messages, row["verdict"]["raw"])


def seal(lake: Lake, recipe: Recipe, revision: Revision, renderer: Renderer) -> int:
    """Write the dataset of a recipe from the loops in the lake; returns the number of rows."""
    assert recipe.dataset is not None
    log = EventLog(lake)
    events = log.read(corpora=[revision.corpus])
    critic = ModelCritic(prompts.load(revision.arms[0].settings.prompt), "lessons", context=2048, max_tokens=512)
    streams = dict(zip(events.column("event_id").to_pylist(), events.column("trajectory_id").to_pylist(), strict=True))
    started = events.filter(pa.compute.equal(events.column("kind"), "start")).select(["trajectory_id", "start"])
    tasks = {row["trajectory_id"]: row["start"]["task_id"] for row in started.to_pylist()}
    rows = []
    for event, messages in lessons(events, critic):
        weights = [0.0] * (sum(m["role"] == "assistant" for m in messages) - 1) + [1.0]
        rendered = renderer.encode(messages, weights)
        if len(rendered.input_ids) > recipe.dataset.max_length:
            continue
        task = tasks[streams[event]]
        held_out = fraction("split", task) < recipe.dataset.held_out
        rows.append({
            "row_id": digest("lesson", event, weights), "recipe": recipe.name, "method": "lessons",
            "split": "held_out" if held_out else "train", "trajectory_id": streams[event], "corpus": revision.corpus,
            "task_id": task, "messages": canonical(messages).decode(), "steps": [0], "weights": weights,
            "event_ids": [event], "mask_event_ids": [], "input_ids": rendered.input_ids, "labels": rendered.labels,
            "n_tokens": len(rendered.input_ids), "n_trained_tokens": rendered.n_trained, "n_masked_steps": 0,
        })  # fmt: skip
    table = pa.Table.from_pylist(rows, DATASET.schema).sort_by("row_id")
    metadata = {
        "dataset_hash": content_hash(table), "events_version": str(log.version), "recipe": recipe.name,
        "recipe_hash": recipe.hash, **renderer.hashes,
    }  # fmt: skip
    lake.replace(recipe.dataset_table, table, metadata)
    return len(table)


def make(recipe: Recipe, lake: Lake, output: Path, report: Reporter) -> dict[str, Any]:
    """Play the lessons, seal them, train, and leave the model in `output`."""
    if recipe.revision is None or recipe.dataset is None:
        raise RecipeError(f"recipe {recipe.name!r} has no `revision` or no `dataset`; the lessons come from them.")
    revise(lake, recipe.revision, _no_model, progress=now_and_then(lambda r: report.log(r.line())))
    n = seal(lake, recipe, recipe.revision, Renderer.load(recipe.base_model))
    report.log(f"{n} lessons")
    row = train(recipe, lake, recipe.seeds[0], report)
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(row["path"], output)
    report.log(f"{registry.model_id(recipe.name, output)} in {output}")
    return row


def _no_model(*_: object) -> Any:
    raise RecipeError("lessons are scripted; use the arms oracle, noisy, placebo, execution and none.")


def main() -> None:
    """Read the command line, make the model."""
    parser = argparse.ArgumentParser(prog="python -m jobs.make_writer", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="jobs/recipes/_writer.yaml", help="recipe file")
    parser.add_argument("--lake", required=True, help="lake URI for the lessons")
    parser.add_argument("--output", type=Path, required=True, help="model directory to write")
    options = parser.parse_args()
    with reporter() as report:
        make(load(options.recipe), Lake(options.lake), options.output, report)


if __name__ == "__main__":
    command(main)
