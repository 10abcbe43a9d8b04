"""Small evaluations for tests: real events of a few steps in a real log, rows of `evaluations` and `models` beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from lakes import good_repair, looping

from schemas.models import MODELS
from stepwell.evaluation.rows import record_rows
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog

Outcomes = Sequence[Sequence[bool]]
"""Whether each attempt at each task is resolved."""


def once(*resolved: bool) -> Outcomes:
    """One attempt a task."""
    return [[r] for r in resolved]


def evaluated(
    lake: Lake, model: str, outcomes: Outcomes, *, suite: str = "x", first: int = 0,
    change: Callable[[list[Event]], list[Event]] = lambda events: events, sampling_seed: int = 0,
) -> str:  # fmt: skip
    """One evaluation of a model over tasks `first`, `first` + 1, ...; returns its id. `change` edits every trajectory."""
    events, names = [], []
    for i, attempts in enumerate(outcomes, first):
        for attempt, ok in enumerate(attempts):
            name = f"{suite}-{model}-{i}-{attempt}-{sampling_seed}"
            made = (good_repair if ok else looping)(
                name, task_id=f"task-{i}", corpus=f"evaluations/{suite}", model=model
            )
            begun = [replace(e, payload={**e.payload, "attempt": attempt}) if e.kind == "start" else e for e in made]
            events += change(begun)
            names.append(name)
    EventLog(lake).append(events, f"{suite}-{model}-{first}")
    known_as = f"{model}@{suite}" + (f"-{sampling_seed}" if sampling_seed else "")
    record_rows(
        lake, names, evaluation_id=known_as, suite=suite, recipe="any", model_id=model, seed=3, backend="test",
        sampling_seed=sampling_seed,
    )  # fmt: skip
    return known_as


def trained(lake: Lake, model: str, recipe: str, seed: int = 0, data: str = "d" * 64) -> None:
    """A row of `models` for a checkpoint of a recipe."""
    row: dict[str, Any] = {
        "model_id": model, "name": f"{recipe}-seed{seed}", "path": "none", "recipe": recipe, "recipe_hash": "r", "seed": seed,
        "dataset": f"datasets/{recipe}", "dataset_version": 0, "dataset_hash": data, "base_model": "base",
        "code_version": "0", "n_parameters": 1, "n_rows": 1, "n_trained_tokens": 1, "metrics": "{}", "environment": "{}",
        "wall_s": 0.0, "recorded_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    lake.add("models", pa.Table.from_pylist([row], MODELS.schema))


def model_id(name: str) -> str:
    """An id as the registry gives them."""
    return f"{name}-0123456789ab"
