"""Lineage: from a model back to the files and rollouts it was learnt from.

Belongs here: following what every row already says about its origin. Does not belong here: anything that records it.
A model names its dataset and version; the dataset's rows name their trajectories; `sources` names the files of those
imported, start and action events the run and policy of those rolled out. A policy that is itself a model is followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape
from rich.tree import Tree as RichTree

from stepwell.errors import UnknownName
from stepwell.lake import Lake
from stepwell.log import EventLog

_FIRST = 3
_BATCH = 500


@dataclass(frozen=True)
class Tree:
    """One thing, what is known of it, and what it was made from."""

    kind: str
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    children: tuple[Tree, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The tree as one JSON document."""
        made_from = [child.as_dict() for child in self.children]
        return {"kind": self.kind, "name": self.name, **self.facts, "made_from": made_from}

    def walk(self) -> Iterable[Tree]:
        """This node and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()


def trace(lake: Lake, model: str) -> Tree:
    """The origins of a model, by id or name (the newest of that name); raises UnknownName with the models there are."""
    models = lake.read("models").sort_by([("recorded_at", "descending"), ("model_id", "ascending")]).to_pylist()
    return _model(lake, model, models, frozenset())


def render_trace(tree: Tree) -> RichTree:
    """The tree for a terminal; names and facts are escaped, as they come from outside."""
    return _rendered(tree, None)


def _rendered(tree: Tree, parent: RichTree | None) -> RichTree:
    facts = ", ".join(f"{key} {_shown(value)}" for key, value in tree.facts.items() if value not in (None, "", [], {}))
    label = f"{tree.kind} [bold]{escape(tree.name)}[/]" + (f"  [dim]{escape(facts)}[/]" if facts else "")
    node = RichTree(label, highlight=False) if parent is None else parent.add(label, highlight=False)
    for child in tree.children:
        _rendered(child, node)
    return node


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {v}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    return str(value)


def _find(model: str, models: list[dict[str, Any]]) -> dict[str, Any] | None:
    for key in ("model_id", "name", "path"):
        found = next((m for m in models if m[key] == model), None)
        if found is not None:
            return found
    return None


def _model(lake: Lake, model: str, models: list[dict[str, Any]], above: frozenset[str]) -> Tree:
    row = _find(model, models)
    if row is None:
        allowed = [n for m in models for n in (m["name"], m["model_id"])]
        raise UnknownName("model", model, allowed, "`stepwell sql 'SELECT name, model_id FROM models'` lists them.")
    above |= {row["model_id"]}
    run = Tree(
        "recipe",
        row["recipe"],
        {"recipe_hash": row["recipe_hash"], "seed": row["seed"], "code_version": row["code_version"]},
        (_dataset(lake, row, models, above),) if row["dataset"] else (),
    )
    losses = {k: round(v, 4) for k, v in orjson.loads(row["metrics"]).items() if k in ("train_loss", "eval_loss")}
    facts = {"model_id": row["model_id"], "recorded_at": row["recorded_at"].isoformat(timespec="seconds"), **losses}
    return Tree("model", row["name"], facts, (run, *_base(lake, row["base_model"], models, above)))


def _base(lake: Lake, base: str, models: list[dict[str, Any]], above: frozenset[str]) -> tuple[Tree, ...]:
    known = _find(base, models)
    if known is None or known["model_id"] in above:
        return (Tree("base model", base),)
    return (_model(lake, known["model_id"], models, above),)


def _dataset(lake: Lake, row: dict[str, Any], models: list[dict[str, Any]], above: frozenset[str]) -> Tree:
    name = row["dataset"] if row["dataset"].startswith("datasets/") else f"datasets/{row['dataset']}"
    facts = {"version": row["dataset_version"], "hash": row["dataset_hash"], "events_version": row["events_version"]}
    columns = ["trajectory_id", "corpus", "n_trained_tokens", "n_masked_steps"]
    rows = lake.read(name, row["dataset_version"], columns=columns)
    facts |= {
        "rows": len(rows),
        "trained_tokens": pc.sum(rows.column("n_trained_tokens")).as_py() or 0,
        "masked_steps": pc.sum(rows.column("n_masked_steps")).as_py() or 0,
    }
    corpora: dict[str, set[str]] = {}
    for corpus, trajectory in zip(
        rows.column("corpus").to_pylist(), rows.column("trajectory_id").to_pylist(), strict=True
    ):
        corpora.setdefault(corpus, set()).add(trajectory)
    files = _files(lake)
    children = [_corpus(lake, c, sorted(corpora[c]), files, row, models, above) for c in sorted(corpora)]
    return Tree("dataset", name, facts, tuple(children))


def _files(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """Trajectory id -> the source files that hold it, by path."""
    columns = ["path", "content_hash", "format", "n_trajectories", "n_rejected", "trajectory_ids"]
    found: dict[str, list[dict[str, Any]]] = {}
    for source in lake.read("sources", columns=columns).sort_by("path").to_pylist():
        for trajectory in source.pop("trajectory_ids"):
            found.setdefault(trajectory, []).append(source)
    return found


def _corpus(
    lake: Lake,
    corpus: str,
    ids: list[str],
    files: dict[str, list[dict[str, Any]]],
    row: dict[str, Any],
    models: list[dict[str, Any]],
    above: frozenset[str],
) -> Tree:
    used = {source["path"]: source for trajectory in ids for source in files.get(trajectory, [])}
    children = [Tree("source", path, {k: v for k, v in s.items() if k != "path"}) for path, s in sorted(used.items())]
    rolled_out = [trajectory for trajectory in ids if trajectory not in files]
    for (run_id, policy), n in sorted(_runs(lake, rolled_out, row["events_version"]).items()):
        known = _find(policy, models)
        below = known is not None and known["model_id"] not in above
        by = (_model(lake, policy, models, above),) if below else ()
        children.append(Tree("rollout", run_id or "run not named", {"policy": policy, "trajectories": n}, by))
    return Tree("corpus", corpus, {"trajectories": len(ids), "first": ids[:_FIRST]}, tuple(children))


def _runs(lake: Lake, ids: list[str], version: int | None) -> Counter[tuple[str, str]]:
    """(run, policy that acted) -> trajectories, of those that came from no file."""
    counted: Counter[tuple[str, str]] = Counter()
    log = EventLog(lake)
    for start in range(0, len(ids), _BATCH):
        part = ids[start : start + _BATCH]
        columns = ["trajectory_id", "kind", "policy", "start"]
        rows = log.read(version, trajectory_ids=part, kinds=["start", "action"], columns=columns)
        counted.update(_run_policy(rows))
    return counted


def _run_policy(rows: pa.Table) -> list[tuple[str, str]]:
    runs: dict[str, str] = {}
    policies: dict[str, set[str]] = {}
    for row in rows.to_pylist():
        policies.setdefault(row["trajectory_id"], set())
        if row["kind"] == "start":
            runs[row["trajectory_id"]] = row["start"]["run_id"] or ""
        else:
            policies[row["trajectory_id"]].add(row["policy"] or "policy not named")
    return [(runs.get(trajectory, ""), policy) for trajectory in policies for policy in policies[trajectory]]
