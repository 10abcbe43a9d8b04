"""What a trajectory, task, repository, corpus, source or event has touched: rows, datasets, models, evaluations, and on.

A model is touched when a row of its dataset version is, or when it started from a touched model; what a touched model said in
a rollout (as agent, teacher or critic) touches that rollout, and what was learnt from it in turn. A comparison is touched when
an evaluation that it rests on is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.affected import NAMED, rows_at, table_of, trajectories_of, with_children
from stepwell.errors import UnknownName
from stepwell.lake import Lake
from stepwell.lineage.tree import Tree
from stepwell.models import find, registered

KINDS = ("trajectory", "event", "task", "repo", "corpus", "source", "model")
"""What can be asked about; without a kind the first of these that knows the name is meant."""
_COLUMN = dict(zip(("trajectory", "task", "repo", "corpus", "source"), NAMED, strict=True))
_SPEAKING = ("action", "attempt", "label", "verdict", "feedback")
_NAMED = 3
_READ = ["row_id", "trajectory_id", "event_ids", "mask_event_ids"]
_COMPARED = ["arm_a", "arm_b", "n_tasks", "difference", "claimable"]


def impact(lake: Lake, name: str, kind: str | None = None) -> Tree:
    """What a thing has touched, each thing once; raises UnknownName for a kind or name that is not there.

    Of an event the rows that learn from it, or from an event that answers it or rests on it, are counted as `learnt`; the
    other rows of its trajectory have it in their context only.
    """
    if kind is not None and kind not in KINDS:
        raise UnknownName("kind", kind, KINDS, "Leave it out to have it told from the name.")
    search = _Search(lake)
    for one in (kind,) if kind else KINDS:
        if one == "model":
            row = find(name, search.newest)
            if row is not None:
                return search.model(row)
        elif one == "event":
            found = lake.read("events", columns=["trajectory_id"], filters=pc.field("event_id") == name)
            if len(found):
                trajectories = set(found.column(0).to_pylist())
                search.events = _answers(lake, trajectories, name)
                return search.root("event", name, trajectories)
        elif trajectories := trajectories_of(lake, _COLUMN[one], name) | _taken_down(lake, _COLUMN[one], name):
            return search.root(one, name, trajectories)
    some = [each for one in ((kind,) if kind else KINDS) for each in _some(lake, one)]
    act = f"At most {_NAMED} of a kind are named; it may be any {kind or ', '.join(KINDS)}. `stepwell sql` lists them."
    raise UnknownName(kind or "name", name, some, act)


def _some(lake: Lake, kind: str) -> list[str]:
    """The first few names of a kind among the first rows that have them."""
    tables = {"event": ("events", "event_id"), "source": ("sources", "path"), "model": ("models", "name")}
    table, column = tables[kind] if kind in tables else ("trajectories", _COLUMN[kind])
    handle = lake.table(table)
    rows = lake.dataset(handle).head(1000, columns=[column]).column(0).to_pylist() if handle else []
    return sorted({name for name in rows if name})[:_NAMED]


def _taken_down(lake: Lake, column: str, name: str) -> set[str]:
    """Trajectories that the folds no longer know, as they were taken down; of these id and corpus are all that is left."""
    if column not in ("trajectory_id", "corpus"):
        return set()
    where = (pc.field("kind") == "retraction") & (pc.field(column) == name)
    rows = lake.read("events", columns=["trajectory_id", "retraction"], filters=where).to_pylist()
    return {row["trajectory_id"] for row in rows if row["retraction"]["target_event"] is None}


def _answers(lake: Lake, trajectories: Set[str], event_id: str) -> set[str]:
    """An event and all that answer it or rest on it, directly or not."""
    columns = ["event_id", "caused_by", "mask"]
    rows = lake.read(
        "events", columns=columns, filters=pc.field("trajectory_id").isin(pa.array(sorted(trajectories), pa.string()))
    ).to_pylist()
    rests = {r["event_id"]: {r["caused_by"], *((r["mask"] or {}).get("evidence") or [])} for r in rows}
    found = {event_id}
    while more := {e for e, origins in rests.items() if origins & found} - found:
        found |= more
    return found


class _Search:
    """One search: everything is visited once, the first time it is met."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.newest = registered(lake)
        self.models = sorted(self.newest, key=lambda m: (m["recorded_at"], m["model_id"]))
        self.events: set[str] = set()
        self._seen_models: set[str] = set()
        self._seen_datasets: set[tuple[str, int | None]] = set()
        self._seen_trajectories: set[str] = set()
        self._seen_comparisons: set[str] = set()

    @cached_property
    def datasets(self) -> dict[tuple[str, int | None], pa.Table | None]:
        """Every dataset at its current version and at those models were trained on."""
        names = self.lake.dataset_names()
        keys = [(name, self.lake.version(name)) for name in names]
        keys += [(name, m["dataset_version"]) for m in self.models if (name := table_of(m)) in names]
        return {key: rows_at(self.lake, *key, _READ) for key in sorted(set(keys), key=str)}

    @cached_property
    def spoken(self) -> Mapping[str, set[str]]:
        """Policy -> trajectories in which it said something."""
        table = self.lake.read("events", columns=["policy", "trajectory_id"], filters=pc.field("kind").isin(_SPEAKING))
        found: dict[str, set[str]] = {}
        for row in table.group_by(["policy", "trajectory_id"]).aggregate([]).to_pylist():
            found.setdefault(row["policy"] or "", set()).add(row["trajectory_id"])
        return found

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        columns = ["evaluation_id", "suite", "model_id", "trajectory_id", "resolved"]
        return list(self.lake.read("evaluations", columns=columns).to_pylist())

    @cached_property
    def comparisons(self) -> list[dict[str, Any]]:
        return list(self.lake.read("comparisons").sort_by("comparison_id").to_pylist())

    def root(self, kind: str, name: str, trajectories: Set[str]) -> Tree:
        """The tree of what these trajectories have touched."""
        found = with_children(self.lake, trajectories)
        self._seen_trajectories |= found
        facts = {"trajectories": len(trajectories), "continued_by": len(found - trajectories)}
        return Tree(kind, name, facts, (*self.learnt(found), *self.counted(found)))

    def learnt(self, trajectories: Set[str]) -> list[Tree]:
        """Datasets with rows of these trajectories, with the models trained on them."""
        found = []
        for (name, version), rows in self.datasets.items():
            facts = {"version": version, **self._touched(rows, trajectories)}
            if facts.get("rows") == 0 or (name, version) in self._seen_datasets:
                continue
            self._seen_datasets.add((name, version))
            trained = [m for m in self.models if table_of(m) == name and m["dataset_version"] == version]
            found.append(Tree("dataset", name, facts, tuple(self._models(trained))))
        return found

    def _touched(self, rows: pa.Table | None, trajectories: Set[str]) -> dict[str, Any]:
        if rows is None:
            return {"rows": None, "erased": True}  # nobody can say any more: counted as touched
        hit = rows.filter(pc.is_in(rows.column("trajectory_id"), pa.array(sorted(trajectories), pa.string())))
        facts: dict[str, Any] = {"rows": len(hit), "row_ids": sorted(hit.column("row_id").to_pylist())}
        if self.events:
            facts["learnt"] = sum(
                not self.events.isdisjoint([*r["event_ids"], *r["mask_event_ids"]]) for r in hit.to_pylist()
            )
        return facts

    def _models(self, rows: list[dict[str, Any]]) -> list[Tree]:
        return [self.model(row) for row in rows if row["model_id"] not in self._seen_models]

    def model(self, row: dict[str, Any]) -> Tree:
        """A model with what started from it, what evaluated it and what it said."""
        self._seen_models.add(row["model_id"])
        newer = [
            m
            for m in self.models
            if (base := find(m["base_model"], self.newest)) and base["model_id"] == row["model_id"]
        ]
        children = self._models(newer)
        mine = [e for e in self.evaluations if e["model_id"] == row["model_id"]]
        children += self._evaluations(mine)
        spoken = {t for key in ("model_id", "name", "path") for t in self.spoken.get(row[key], ())}
        spoken -= self._seen_trajectories | {e["trajectory_id"] for e in mine}
        if spoken:
            spoken = with_children(self.lake, spoken) - self._seen_trajectories
        self._seen_trajectories |= spoken
        children += self._rollouts(spoken)
        return Tree("model", row["name"], {"model_id": row["model_id"], "path": row["path"]}, tuple(children))

    def _rollouts(self, trajectories: Set[str]) -> list[Tree]:
        where = pc.field("trajectory_id").isin(pa.array(sorted(trajectories), pa.string()))
        rows = self.lake.read("trajectories", columns=["trajectory_id", "corpus"], filters=where).to_pylist()
        corpora: dict[str, set[str]] = {}
        for r in rows:
            corpora.setdefault(r["corpus"], set()).add(r["trajectory_id"])
        return [
            Tree("rollouts", corpus, {"trajectories": len(ids)}, (*self.learnt(ids), *self.counted(ids)))
            for corpus, ids in sorted(corpora.items())
        ]

    def counted(self, trajectories: Set[str]) -> list[Tree]:
        """Evaluations that count these trajectories themselves."""
        return self._evaluations([e for e in self.evaluations if e["trajectory_id"] in trajectories])

    def _evaluations(self, rows: list[dict[str, Any]]) -> list[Tree]:
        sizes = Counter(r["evaluation_id"] for r in rows)
        resolved = Counter(r["evaluation_id"] for r in rows if r["resolved"])
        suites = {r["evaluation_id"]: r["suite"] for r in rows}
        return [
            Tree(
                "evaluation",
                name,
                {"suite": suites[name], "attempts": n, "resolved": resolved[name]},
                tuple(self._comparisons(name)),
            )
            for name, n in sorted(sizes.items())
        ]

    def _comparisons(self, evaluation: str) -> list[Tree]:
        """Comparisons that rest on an evaluation and were not met yet."""
        new = [
            c
            for c in self.comparisons
            if evaluation in compared(c) and c["comparison_id"] not in self._seen_comparisons
        ]
        self._seen_comparisons |= {c["comparison_id"] for c in new}
        return [Tree("comparison", c["comparison_id"], {name: c[name] for name in _COMPARED}) for c in new]


def compared(row: Mapping[str, Any]) -> set[str]:
    """The evaluations that a row of `comparisons` rests on."""
    return {row["evaluation_a"], row["evaluation_b"], *(row["evaluations_a"] or ()), *(row["evaluations_b"] or ())}
