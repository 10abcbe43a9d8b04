"""What a model, dataset, row, trajectory or event was made from, down to the files and rollouts.

A model names its dataset and version; the dataset's rows name their trajectories and events; `sources` names the files of
those imported, start and action events the run and policy of those rolled out. A policy that is itself a model is followed.
Of a version that a redaction erased its seal is told, and what its table's current version still leads to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from stepwell.affected import readable, table_of
from stepwell.errors import UnknownName, UsageError
from stepwell.lake import Lake
from stepwell.lineage.tree import Tree
from stepwell.log import EventLog
from stepwell.models import find, registered
from stepwell.seals import seal_of

Row = dict[str, Any]
Locate = Callable[[Mapping[str, Any], str, Set[str]], dict[str, Any]]
"""(row of `sources`, trajectory, event ids of it) -> facts of where in the file it stands."""
_FIRST = 3
_BATCH = 500
_TOLD = {
    "action": ("command",), "label": ("command",), "attempt": ("round",), "verdict": ("label", "severity", "judgment"),
    "mask": ("weight", "reason"), "outcome": ("grader", "resolved"), "reward": ("reward",), "feedback": ("mode",),
}  # fmt: skip
"""Payload fields that say in short what an event says."""


def trace(lake: Lake, name: str, locate: Locate | None = None) -> Tree:
    """The origins of a model (id, name, directory), dataset (`NAME` or `NAME@VERSION`), row, event or trajectory.

    The newest model of a name is meant; a model goes before a dataset of the same name, which `datasets/NAME` means. A row
    that stands in several datasets is named as `lineage_edges` names it, `datasets/NAME@VERSION#ROW_ID`. `locate`
    says where in a file a trajectory stands. What a model was made from is told once, where it is met first; elsewhere it is
    only named. Raises UnknownName with the models and datasets there are.
    """
    models = registered(lake)
    if find(name, models) is not None:
        return _model(lake, name, models, set())
    whole, _, row_id = name.partition("#")
    table, _, version = whole.partition("@")
    table = f"datasets/{table.removeprefix('datasets/')}"
    of = None
    if table in lake.dataset_names():
        sealed = _sealed(lake, table, version)
        if not row_id:
            return _dataset(lake, {"dataset": table, **sealed}, models, set())
        of = (table, sealed["dataset_version"])
    return (
        _row(lake, row_id if of else name, of, locate, models)
        or _event(lake, name, locate)
        or _trajectory(lake, name, set(), locate, models)
        or _unknown(lake, name, models)
    )


def _unknown(lake: Lake, name: str, models: Sequence[Row]) -> Tree:
    allowed = [*(n for m in models for n in (m["name"], m["model_id"])), *lake.dataset_names()]
    act = (
        "Or give the id of a row, event or trajectory. `stepwell sql 'SELECT name, model_id FROM models'` lists models."
    )
    raise UnknownName("model", name, allowed, act)


def _sealed(lake: Lake, table: str, version: str) -> Row:
    last = lake.version(table)
    if version and not (version.isdigit() and last is not None and int(version) <= last):
        raise UsageError(f"{table!r} has no version {version!r}; it has 0 to {last}. Name one of these.")
    wanted = int(version) if version else last
    _, said = seal_of(lake, table, wanted) or (wanted, {})
    events = said.get("events_version")
    return {
        "dataset_version": wanted,
        "dataset_hash": said.get("dataset_hash"),
        "events_version": None if events is None else int(events),
    }


def _model(lake: Lake, model: str, models: Sequence[Row], met: set[str]) -> Tree:
    row = find(model, models)
    if row is None:
        return _unknown(lake, model, models)
    met.add(row["model_id"])
    run = Tree(
        "recipe",
        row["recipe"],
        {"recipe_hash": row["recipe_hash"], "seed": row["seed"], "code_version": row["code_version"]},
        (_dataset(lake, row, models, met),) if row["dataset"] else (),
    )
    losses = {k: round(v, 4) for k, v in orjson.loads(row["metrics"]).items() if k in ("train_loss", "eval_loss")}
    facts = {"model_id": row["model_id"], "recorded_at": row["recorded_at"].isoformat(timespec="seconds"), **losses}
    return Tree("model", row["name"], facts, (run, *_base(lake, row["base_model"], models, met)))


def _base(lake: Lake, base: str, models: Sequence[Row], met: set[str]) -> tuple[Tree, ...]:
    known = find(base, models)
    if known is None or known["model_id"] in met:
        return (Tree("base model", base),)
    return (_model(lake, known["model_id"], models, met),)


def _dataset(lake: Lake, row: Row, models: Sequence[Row], met: set[str]) -> Tree:
    name = table_of(row)
    assert name is not None
    facts = {"version": row["dataset_version"], "hash": row["dataset_hash"], "events_version": row["events_version"]}
    columns = ["row_id", "trajectory_id", "corpus", "n_trained_tokens", "n_masked_steps"]
    at = readable(lake, name, row["dataset_version"])
    rows = lake.read(name, at, columns=columns)
    if at == row["dataset_version"]:
        facts |= {
            "rows": len(rows),
            "trained_tokens": pc.sum(rows.column("n_trained_tokens")).as_py() or 0,
            "masked_steps": pc.sum(rows.column("n_masked_steps")).as_py() or 0,
        }
    else:
        _, seal = seal_of(lake, name, row["dataset_version"]) or (None, {})
        counts = orjson.loads(seal.get("counts", "{}"))
        facts |= {k: counts.get(k) for k in ("rows", "trained_tokens", "masked_steps")}
        facts |= {"erased": True, "read_at": at, "rows_read": len(rows)}
    facts["first_rows"] = sorted(rows.column("row_id").to_pylist())[:_FIRST]
    corpora: dict[str, set[str]] = {}
    for corpus, trajectory in zip(
        rows.column("corpus").to_pylist(), rows.column("trajectory_id").to_pylist(), strict=True
    ):
        corpora.setdefault(corpus, set()).add(trajectory)
    files = _files(lake)
    events = readable(lake, "events", row["events_version"])
    children = [_corpus(lake, c, sorted(corpora[c]), files, events, models, met) for c in sorted(corpora)]
    return Tree("dataset", name, facts, tuple(children))


def _files(lake: Lake, trajectory: str | None = None) -> dict[str, list[Row]]:
    """Trajectory id -> the source files that hold it, by path; of one trajectory, or of all."""
    columns = ["path", "content_hash", "format", "n_trajectories", "n_rejected", "trajectory_ids"]
    found: dict[str, list[Row]] = {}
    for source in lake.read("sources", columns=columns).sort_by("path").to_pylist():
        for held in source.pop("trajectory_ids"):
            if trajectory in (None, held):
                found.setdefault(held, []).append(source)
    return found


def _corpus(
    lake: Lake,
    corpus: str,
    ids: list[str],
    files: dict[str, list[Row]],
    events: int | None,
    models: Sequence[Row],
    met: set[str],
) -> Tree:
    used = {source["path"]: source for trajectory in ids for source in files.get(trajectory, [])}
    children = [_source(s) for _, s in sorted(used.items())]
    rolled_out = [trajectory for trajectory in ids if trajectory not in files]
    for (run_id, policy), n in sorted(_runs(lake, rolled_out, events).items()):
        children.append(_rollout(lake, run_id, policy, n, models, met))
    return Tree("corpus", corpus, {"trajectories": len(ids), "first": ids[:_FIRST]}, tuple(children))


def _source(source: Row, **more: Any) -> Tree:
    return Tree("source", source["path"], {k: v for k, v in source.items() if k != "path"} | more)


def _rollout(lake: Lake, run_id: str, policy: str, n: int, models: Sequence[Row], met: set[str]) -> Tree:
    known = find(policy, models)
    below = known is not None and known["model_id"] not in met
    by = (_model(lake, policy, models, met),) if below else ()
    return Tree("rollout", run_id or "run not named", {"policy": policy, "trajectories": n}, by)


def _runs(lake: Lake, ids: list[str], version: int | None) -> Counter[tuple[str, str]]:
    """(run, policy that acted) -> trajectories, of those that came from no file."""
    counted: Counter[tuple[str, str]] = Counter()
    log = EventLog(lake)
    for start in range(0, len(ids), _BATCH):
        part = ids[start : start + _BATCH]
        columns = ["trajectory_id", "kind", "policy", "start"]
        rows = log.read(version, trajectory_ids=part, kinds=["start", "action", "attempt"], columns=columns)
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


def _row(
    lake: Lake, row_id: str, of: tuple[str, int | None] | None, locate: Locate | None, models: Sequence[Row]
) -> Tree | None:
    """A training row of a dataset at a version; of none named: of the current version of one, else the newest trained on.

    Versions that a redaction erased are passed over.
    """
    versions = [(name, lake.version(name)) for name in lake.dataset_names()]
    versions += [(name, m["dataset_version"]) for m in models if (name := table_of(m)) in lake.dataset_names()]
    for name, version in [of] if of else dict.fromkeys(versions):
        if readable(lake, name, version) != version:
            continue
        rows = lake.read(name, version, filters=pc.field("row_id") == row_id).to_pylist()
        if rows:
            row = rows[0]
            told = ("method", "split", "n_tokens", "n_trained_tokens", "n_masked_steps")
            facts = {"dataset": f"{name}@{version}", **{k: row[k] for k in told}}
            trajectory = _trajectory(
                lake, row["trajectory_id"], {*row["event_ids"], *row["mask_event_ids"]}, locate, models
            )
            return Tree("row", row_id, facts, () if trajectory is None else (trajectory,))
    return None


def _event(lake: Lake, event_id: str, locate: Locate | None) -> Tree | None:
    rows = lake.read("events", columns=["trajectory_id"], filters=pc.field("event_id") == event_id)
    if not len(rows):
        return None
    models = lake.read("models").to_pylist()
    trajectory = _trajectory(lake, rows.column(0)[0].as_py(), {event_id}, locate, models)
    return Tree("event", event_id, {}, () if trajectory is None else (trajectory,))


def _trajectory(
    lake: Lake, trajectory_id: str, wanted: Set[str], locate: Locate | None, models: Sequence[Row]
) -> Tree | None:
    """A trajectory with these of its events, each with what it answers or rests on, and where it came from."""
    columns = [
        "event_id",
        "corpus",
        "step",
        "kind",
        "actor",
        "policy",
        "caused_by",
        "batch_id",
        "start",
        "task",
        *_TOLD,
    ]
    rows = EventLog(lake).read(trajectory_ids=[trajectory_id], columns=columns).to_pylist()
    if not rows:
        return None
    by_id = {r["event_id"]: r for r in rows}
    steps: dict[int | None, list[Tree]] = {}
    for r in rows:
        if r["event_id"] in wanted:
            steps.setdefault(r["step"], []).append(_told(r, by_id, frozenset()))
    children = [Tree("step", "whole" if step is None else str(step), {}, tuple(found)) for step, found in steps.items()]
    files = _files(lake, trajectory_id).get(trajectory_id, [])
    for source in files:
        children.append(_source(source, **(locate(source, trajectory_id, wanted & by_id.keys()) if locate else {})))
    start = next((r["start"] for r in rows if r["kind"] == "start"), None) or {}
    if not files:
        met: set[str] = set()
        for policy in sorted({r["policy"] for r in rows if r["kind"] in ("action", "attempt") and r["policy"]}):
            children.append(_rollout(lake, start.get("run_id") or "", policy, 1, models, met))
    if parent := start.get("parent_trajectory"):
        children.append(Tree("continues", parent, {"fork_step": start.get("fork_step")}))
    facts = {"corpus": rows[0]["corpus"], "task": start.get("task_id"), "events": len(rows)}
    facts["batches"] = sorted({r["batch_id"] for r in rows if r["event_id"] in wanted})
    return Tree("trajectory", trajectory_id, facts, tuple(children))


def _told(row: Row, by_id: Mapping[str, Row], above: frozenset[str]) -> Tree:
    """An event, and the events it answers or rests on."""
    kind, payload = row["kind"], row.get(row["kind"]) or {}
    said = {k: payload[k] for k in _TOLD.get(kind, ()) if payload.get(k) is not None}
    above |= {row["event_id"]}
    origins = [row["caused_by"], *((payload.get("evidence") or []) if kind == "mask" else [])]
    below = tuple(_told(by_id[i], by_id, above) for i in dict.fromkeys(origins) if i in by_id and i not in above)
    return Tree(kind, row["event_id"], {"policy": row["policy"], **said}, below)
