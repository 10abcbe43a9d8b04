"""After a takedown or redaction, whose erased versions nobody can read any more: what is left is told, nothing stops."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import lakes
import pyarrow as pa
import pytest
from evaluated import evaluated, once
from rich.console import Console
from test_lineage import model, nodes, valid
from test_query import dataset_row

from schemas.models import MODELS
from stepwell.contamination.gate import gate
from stepwell.contamination.reading import of_trajectories
from stepwell.critics.audit import kind_of, training_of
from stepwell.critics.examine import examine
from stepwell.errors import LakeError, UnknownName
from stepwell.evaluation.compare import compare
from stepwell.event import Event
from stepwell.exporters.reading import hidden_since
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.lineage import impact, render_trace, trace
from stepwell.lineage.openlineage import openlineage
from stepwell.lineage.picture import picture
from stepwell.log import EventLog
from stepwell.recipe import Contamination
from stepwell.redaction.run import redact
from stepwell.redaction.target import Target

SECRET = "correct-horse-battery-staple"
ROLLED_OUT = "rollouts/one two"


@pytest.fixture(params=[Target(down=frozenset({"t-good-a"})), Target((SECRET,))], ids=["takedown", "redact"])
def erased(lake: Lake, request: pytest.FixtureRequest) -> Lake:
    """Models on `datasets/srft`, whose version 1 has a row of `t-good-a`, and on `datasets/other`, which has none; the
    trajectory is then taken down, or a value in it redacted.
    """
    lakes.build(lake)
    EventLog(lake).append([Event("notice", "t-good-a", "demo", "system", {"text": SECRET}, 2)], "secret")
    events = lake.version("events")
    seal = {"dataset_hash": "one", "events_version": str(events)}
    seal["counts"] = json.dumps({"rows": 2, "trained_tokens": 2, "masked_steps": 2})
    kept = dataset_row("r2", "srft", "t-good-b", ROLLED_OUT)
    lake.replace("datasets/srft", pa.concat_tables([dataset_row("r1", "srft", "t-good-a"), kept]), seal)
    lake.replace("datasets/other", dataset_row("r3", "other", "t-good-b", ROLLED_OUT), seal)
    models = [model(name, f"datasets/{name}", 1) | {"events_version": events} for name in ("srft", "other")]
    lake.add("models", pa.Table.from_pylist(models, schema=MODELS.schema))
    for made in models:
        evaluated(lake, made["model_id"], once(True, False))
    refresh(lake)
    assert redact(lake, request.param, "asked for").done
    for table, version in (("datasets/srft", 1), ("events", events)):
        with pytest.raises(LakeError, match="before a redaction"):
            lake.read(table, version)
    return lake


@pytest.mark.parametrize("asked", ["srft", "datasets/srft@1"])
def test_a_trace_says_what_is_erased_and_goes_on_with_what_is_left(erased: Lake, asked: str) -> None:
    tree = trace(erased, asked)
    (dataset,) = nodes(tree, "dataset")
    assert dataset.facts["version"] == 1
    assert [dataset.facts[k] for k in ("rows", "trained_tokens", "masked_steps")] == [2, 2, 2], "as sealed"
    left = {"erased": True, "read_at": erased.version("datasets/srft"), "rows_read": 1, "first_rows": ["r2"]}
    assert {k: dataset.facts[k] for k in left} == left
    assert [(n.name, n.facts["policy"]) for n in nodes(dataset, "rollout")] == [("run-1", "model-b")]
    out = io.StringIO()
    Console(file=out, width=300).print(render_trace(tree))
    assert "erased True" in out.getvalue()
    ElementTree.fromstring(picture(tree))
    runs = openlineage(erased, tree)
    assert "build.srft" in [run["job"]["name"] for run in runs]
    for run in runs:
        valid(run)


def test_a_version_that_has_no_seal_is_erased_without_counts(erased: Lake) -> None:
    erased.replace("datasets/bare", dataset_row("r4", "bare", "t-loop-a"), {})
    assert redact(erased, Target(down=frozenset({"t-loop-a"})), "asked for").done
    facts = trace(erased, "datasets/bare@1").facts
    assert (facts["rows"], facts["erased"], facts["rows_read"]) == (None, True, 0)


def test_what_is_untouched_is_traced_as_before(erased: Lake) -> None:
    for name, kind in (("other", "model"), ("datasets/srft", "dataset"), ("t-good-b", "trajectory"), ("r3", "row")):
        tree = trace(erased, name)
        assert tree.kind == kind
        assert [n.facts["policy"] for n in nodes(tree, "rollout")] == ["model-b"]
        assert not any("erased" in n.facts for n in tree.walk())
    event = EventLog(erased).read(trajectory_ids=["t-good-b"], kinds=["action"]).column("event_id")[0].as_py()
    assert [n.name for n in nodes(trace(erased, event), "action")] == [event]
    assert trace(erased, "r2").facts["dataset"] == f"datasets/srft@{erased.version('datasets/srft')}"
    with pytest.raises(UnknownName, match="'r1'"):
        trace(erased, "r1")
    assert impact(erased, "t-good-b").kind == "trajectory"


def test_a_comparison_leaves_out_the_share_that_is_erased(erased: Lake) -> None:
    compared = compare(erased, ["srft", "other"])
    assert [arm.masked_share for arm in compared.arms] == [None, 0.5]
    (note,) = (n for n in compared.notes if "masked" in n)
    assert note == "srft: no share of masked steps, as a redaction erased rows of datasets/srft at version 1."


def test_contamination_reads_what_is_there(erased: Lake) -> None:
    report = gate(erased, "datasets/srft", Contamination())
    assert (report.version, report.n_rows) == (erased.version("datasets/srft"), 1)
    assert "evaluations/x" in report.suites
    ((name, task, _),) = of_trajectories(erased, ["t-good-b"], 1)
    assert task is not None
    assert (name, task.task_id) == ("t-good-b", "task-1")
    with pytest.raises(LakeError, match=r"read it at its current version \(2\)"):
        gate(erased, "datasets/srft", Contamination(), version=1)


def test_a_critic_is_audited_by_what_is_left_of_its_data(erased: Lake) -> None:
    srft, other = (f"steer@1/{model(name, None, 1)['model_id']}" for name in ("srft", "other"))
    learnt = training_of(erased, srft)
    assert (learnt.datasets, learnt.erased) == (("datasets/srft@1",), ("datasets/srft@1",))
    assert learnt.trajectory_ids == {"t-good-b"}
    assert "what a redaction left of datasets/srft@1" in learnt.caveat
    assert [learnt.kind([t]) for t in ("t-good-a", "t-good-b")] == ["unknown", "training-fit"]
    assert (training_of(erased, other).caveat, training_of(erased, other).kind(["t-good-a"])) == ("", "evaluation")
    told = (lakes.looping("t-loop-a", model="model-a", task_id="task-2"), "none of these trajectories is in it")
    fit = lakes.good_repair("t-good-b", model="model-b", task_id="task-1", corpus=ROLLED_OUT)
    for made, sentence in (told, (fit, "a fit to training data: 1 of these")):
        EventLog(erased).append([lakes.verdict(a, "good", srft) for a in lakes.actions(made)], "judged")
        note = kind_of(examine(erased, srft, draws=100).audit)
        assert sentence in note
        assert "what a redaction left of datasets/srft@1" in note


def test_what_was_taken_out_since_is_known_by_its_time(erased: Lake) -> None:
    sealed = erased.read("models").column("events_version")[0].as_py()
    assert hidden_since(EventLog(erased), sealed) == {"t-good-a"}
    assert hidden_since(EventLog(erased), erased.version("events") or 0) == set()
