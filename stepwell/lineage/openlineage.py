"""A lineage tree as OpenLineage run events: datasets built, models trained, evaluated and compared, with dataset versions.

Belongs here: saying what a tree says in the words of the OpenLineage specification (2-0-2). Does not belong here: sending it
anywhere. One run is one COMPLETE event; its run id follows from what was made, so writing it twice gives the same events.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from stepwell import __version__
from stepwell.lake import Lake
from stepwell.lineage.impact import compared
from stepwell.lineage.tree import Tree
from stepwell.models import find, registered

Facets = dict[str, Any]
Row = dict[str, Any]
PRODUCER = f"urn:stepwell:{__version__}"
_SPEC = "https://openlineage.io/spec"
SCHEMA = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
_VERSION = f"{_SPEC}/facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
_DATASET = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/DatasetFacet"
_JOB = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/JobFacet"


def openlineage(lake: Lake, tree: Tree) -> list[dict[str, Any]]:
    """Run events of every dataset version, model, evaluation and comparison in a tree, in the order they were recorded.

    A dataset was built from `events` at a version, a model trained on a dataset version and a base, an evaluation made with a
    model, a comparison from evaluations. What is not on record (a dataset of before its seal) has no event.
    """
    nodes = list(tree.walk())
    told, models = {n.facts["model_id"] for n in nodes if n.kind == "model"}, registered(lake)
    wanted = {(n.name, n.facts["version"]) for n in nodes if n.kind == "dataset"}
    found = [_trained(lake, m, models) for m in models if m["model_id"] in told]
    for name, version in sorted(wanted, key=str):
        found += _built(lake, name, version)
    evaluated = {n.name for n in nodes if n.kind == "evaluation"}
    found += _evaluated(lake, evaluated, models)
    found += _compared(lake, {n.name for n in nodes if n.kind == "comparison"})
    return sorted(found, key=lambda e: (e["eventTime"], e["run"]["runId"]))


def _event(
    lake: Lake, when: datetime | str, job: str, inputs: list[Facets], outputs: list[Facets], **facts: Any
) -> Facets:
    told = when if isinstance(when, str) else when.isoformat()
    made = [(o["name"], (o["facets"].get("version") or {}).get("datasetVersion")) for o in outputs]
    run = uuid.uuid5(uuid.NAMESPACE_URL, f"{lake.uri}|{job}|{made}")
    facets = {
        "stepwell": {"_producer": PRODUCER, "_schemaURL": _JOB, **{k: v for k, v in facts.items() if v is not None}}
    }
    return {
        "eventType": "COMPLETE",
        "eventTime": told,
        "run": {"runId": str(run)},
        "job": {"namespace": "stepwell", "name": job, "facets": facets},
        "inputs": inputs,
        "outputs": outputs,
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
    }


def _dataset(lake: Lake, name: str, version: Any, **facts: Any) -> Facets:
    facets: Facets = {}
    if version is not None:
        facets["version"] = {"_producer": PRODUCER, "_schemaURL": _VERSION, "datasetVersion": str(version)}
    if facts:
        facets["stepwell"] = {"_producer": PRODUCER, "_schemaURL": _DATASET, **facts}
    return {"namespace": lake.uri, "name": name, "facets": facets}


def _of_model(lake: Lake, row: Row | None, named: str) -> Facets:
    """A registered model under its name, with its id as the version; one that is not as it was named."""
    if row is None:
        return _dataset(lake, named, None)
    return _dataset(lake, f"models/{row['name']}", row["model_id"], path=row["path"])


def _trained(lake: Lake, m: Row, models: Sequence[Row]) -> Facets:
    base = find(m["base_model"], [other for other in models if other["model_id"] != m["model_id"]])
    inputs = [_of_model(lake, base, m["base_model"])]
    if m["dataset"]:
        inputs.append(_dataset(lake, m["dataset"], m["dataset_version"], hash=m["dataset_hash"]))
    output = _of_model(lake, m, m["name"])
    facts = {
        "recipe": m["recipe"],
        "recipe_hash": m["recipe_hash"],
        "seed": m["seed"],
        "code_version": m["code_version"],
    }
    return _event(lake, m["recorded_at"], f"train.{m['recipe']}", inputs, [output], **facts)


def _built(lake: Lake, name: str, version: int | None) -> Iterator[Facets]:
    commit = next((c for c in lake.commits(name) if c["version"] == version), None)
    if commit is None or "timestamp" not in commit:
        return
    when = datetime.fromtimestamp(commit["timestamp"] / 1000).astimezone()
    inputs = [_dataset(lake, "events", commit.get("events_version"))]
    output = _dataset(lake, name, version, hash=commit.get("dataset_hash"))
    yield _event(
        lake, when, f"build.{name.removeprefix('datasets/')}", inputs, [output], recipe_hash=commit.get("recipe_hash")
    )


def _evaluated(lake: Lake, names: set[str], models: Sequence[Row]) -> Iterator[Facets]:
    rows = [r for r in lake.read("evaluations").to_pylist() if r["evaluation_id"] in names]
    for name in sorted(names):
        mine = [r for r in rows if r["evaluation_id"] == name]
        last = max(mine, key=lambda r: r["recorded_at"])
        known = next((m for m in models if m["model_id"] == last["model_id"]), None)
        inputs = [_of_model(lake, known, last["model_id"])]
        output = _dataset(
            lake, f"evaluations/{name}", None, attempts=len(mine), resolved=sum(r["resolved"] for r in mine)
        )
        yield _event(lake, last["recorded_at"], f"evaluate.{last['suite']}", inputs, [output], seed=last["seed"])


def _compared(lake: Lake, names: set[str]) -> Iterator[Facets]:
    for row in lake.read("comparisons").sort_by("comparison_id").to_pylist():
        if row["comparison_id"] in names:
            inputs = [_dataset(lake, f"evaluations/{name}", None) for name in sorted(compared(row))]
            output = _dataset(lake, f"comparisons/{row['comparison_id']}", None, difference=row["difference"])
            yield _event(lake, row["recorded_at"], f"compare.{row['suite']}", inputs, [output])
