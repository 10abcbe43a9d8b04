"""Importers: one contract for all, what each keeps where, and hostile input that ends as a reject, never as an error."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trajectory_files import CREATED, SAMPLES, mini_1, mini_11, mini_responses, swe_0, swe_1, write

from stepwell.event import Event, to_table
from stepwell.importers.base import CAPABILITIES, REASONS, Imported, Rejected, SourceFile
from stepwell.importers.containers import open_blob
from stepwell.importers.files import Bytes
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.run import import_paths
from stepwell.importers.sniff import Sniffed
from stepwell.lake import Lake

Obj = dict[str, Any]


def inspect(data: bytes) -> tuple[Sniffed, Any]:
    opened = open_blob(Bytes(data))
    return opened.told, opened.document


def read(document: Any, stem: str = "acme__anvil-7", folder: str = "trajs") -> Imported:
    told, parsed = inspect(orjson.dumps(document))
    source = SourceFile(f"{folder}/{stem}", stem, folder, "c", told.version, "identity")
    (one,) = IMPORTERS[told.format].read(parsed, source)
    assert isinstance(one, Imported), one
    return one


def of(kind: str, imported: Imported) -> list[Event]:
    return [e for e in imported.events if e.kind == kind]


def leaves(value: Any) -> Iterator[Any]:
    """Every text, number and time in a value; text that is JSON is looked into as well."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, datetime):
        yield value.timestamp()
    elif value is not None and value != "":
        yield value
        if isinstance(value, str) and value[:1] in "{[":
            try:
                yield from leaves(json.loads(value))
            except ValueError:
                return


def lost(document: Any, imported: Imported) -> set[Any]:
    """Texts and numbers of a document that stand in no event; roles are told by the kind of event."""
    kept = set(leaves([[e.payload, e.usage, e.extra, e.occurred_at] for e in imported.events]))
    kept |= set(of("start", imported)[0].payload["agent"].split())
    document = copy.deepcopy(document)
    if isinstance(document, dict):
        for step in document.get("trajectory", []):
            step.pop("messages", None), step.pop("query", None)
    return {v for v in leaves(document) if v not in kept} - {"assistant", "exit"}


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_importer_keeps_the_contract(sample: str) -> None:
    name, document, n_steps = SAMPLES[sample]
    imported = read(document, name.split(".traj")[0])
    actions, observations = of("action", imported), of("observation", imported)
    assert imported.n_steps == n_steps == len(actions)
    assert [a.step for a in actions] == list(range(n_steps))
    assert [len(of(kind, imported)) for kind in ("start", "end")] == [1, 1]
    assert imported.events[-1].kind == "end"
    assert not {e.kind for e in imported.events} & {"verdict", "outcome"}
    assert {o.caused_by for o in observations} <= {a.event_id for a in actions}
    assert len({(o.step, o.payload["position"]) for o in observations}) == len(observations)
    assert len({e.event_id for e in imported.events}) == len(imported.events)
    assert all((a.payload.get("command") is None) == ("parse_error" in a.payload) for a in actions)
    assert all(e.usage is None for e in imported.events if e.kind != "action")
    assert not any(i.payload["role"] == "assistant" and not i.payload["is_demo"] for i in of("instruction", imported))
    assert lost(document, imported) == set()
    assert to_table(imported.events, "b", datetime.now(UTC)).num_rows == len(imported.events)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_copy_elsewhere_is_the_same_trajectory(sample: str) -> None:
    assert read(SAMPLES[sample][1]).trajectory_id == read(SAMPLES[sample][1], "copy", "elsewhere").trajectory_id


@pytest.mark.parametrize("importer", IMPORTERS.values(), ids=lambda i: i.name)
def test_capabilities_are_stated(importer: Any) -> None:
    assert tuple(importer.capabilities) == CAPABILITIES
    assert importer.versions
    assert all(REASONS.values())


def test_mini_1_keeps_format_errors_times_and_costs() -> None:
    imported = read(mini_1())
    actions, observations = of("action", imported), of("observation", imported)
    assert [a.payload.get("command") for a in actions] == [
        "ls -la", None, "sleep 99", "make test", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git diff",
    ]  # fmt: skip
    assert actions[1].payload["parse_error"] == "expected exactly 1 bash block, found 2"
    assert observations[1].payload["rendered"].startswith("Please always provide")
    assert [o.payload.get("exit_code") for o in observations] == [0, None, None, 1, None]
    assert [o.payload.get("timed_out") for o in observations] == [False, None, True, False, None]
    assert observations[3].payload["elided_chars"] == 4321
    assert all("raw" not in o.payload for o in observations)
    assert [a.usage["cost_usd"] if "cost_usd" in (a.usage or {}) else None for a in actions] == [
        0.01, None, 0.01, 0.01, 0.01,
    ]  # fmt: skip
    assert actions[0].usage == {
        "call_id": f"gen-{CREATED}", "tokens_in": 120, "tokens_out": 30, "cache_read": 64, "reasoning": 11,
        "cost_usd": 0.01, "price_policy": "source", "finish": "stop",
    }  # fmt: skip
    assert actions[0].occurred_at == datetime.fromtimestamp(CREATED, UTC)
    assert actions[0].payload["reasoning"] == "It must be the loop."
    assert actions[0].policy == "lab/small-1"


def test_mini_1_submission_ends_it_and_answers_the_last_step() -> None:
    imported = read(mini_1())
    (end,) = of("end", imported)
    assert end.payload["submission"] == of("observation", imported)[-1].payload["rendered"]
    assert end.payload["cost_usd"] == 0.04
    limited = mini_1()
    limited["messages"] = [*limited["messages"][:-2], {"role": "user", "content": ""}]
    limited["info"] |= {"exit_status": "LimitsExceeded", "submission": ""}
    observations = of("observation", read(limited))
    assert [o.step for o in observations] == [0, 1, 2, 3]


def test_mini_task_is_recovered_exactly_or_not_at_all() -> None:
    (task,) = of("task", read(mini_1(task="Line one.\n\nLine two {{x}}.")))
    assert task.payload["statement"] == "Line one.\n\nLine two {{x}}."
    assert task.payload["repo"] == "acme/anvil"
    other = mini_1()
    other["info"]["config"]["agent"]["instance_template"] += "{% if a %}b{% endif %}"
    assert "statement" not in of("task", read(other))[0].payload


def test_mini_without_an_instance_names_no_task() -> None:
    assert read(SAMPLES["mini-bare"][1], "local").instance_id is None
    assert read(mini_1(None), "acme__anvil-7", "acme__anvil-7").instance_id == "acme__anvil-7"


def test_mini_11_tool_calls_and_hidden_replies() -> None:
    imported = read(mini_11())
    actions, observations = of("action", imported), of("observation", imported)
    assert actions[0].payload["command"] == "ls\nsleep 9"
    assert [c["id"] for c in json.loads(actions[0].payload["tool_calls"])] == ["c1", "c2"]
    first = [o for o in observations if o.step == 0]
    assert [(o.payload["position"], o.payload["tool_call_id"], o.payload["exit_code"]) for o in first] == [
        (0, "c1", 0), (1, "c2", -1),
    ]  # fmt: skip
    assert first[0].payload["raw"] == "anvil.py and more"
    assert first[1].payload["timed_out"] is True
    assert first[0].occurred_at == datetime.fromtimestamp(CREATED + 1.5, UTC)
    hidden = actions[1]
    assert hidden.payload["text"] == "I am done."
    assert hidden.payload["parse_error"] == "FormatError"
    assert hidden.usage is not None
    assert hidden.usage["cost_usd"] == 0.25
    assert json.loads(hidden.extra or "")["not_in_prompt"] is True
    assert actions[2].actor == "human"
    assert [o.actor for o in observations if o.step == 3] == ["human"]
    assert of("end", imported)[0].payload["exit_status"] == "Submitted"
    assert observations[-1].payload["rendered"] == "+heavy"
    assert of("start", imported)[0].payload.get("step_limit") is None


def test_mini_responses_items_have_no_role() -> None:
    imported = read(mini_responses())
    actions, observations = of("action", imported), of("observation", imported)
    assert [a.payload["text"] for a in actions] == ["Look around.", "Look around."]
    assert actions[0].payload["command"] == "ls"
    assert json.loads(actions[0].payload["tool_calls"])[0]["function"] == {
        "name": "bash", "arguments": '{"command": "ls"}',
    }  # fmt: skip
    assert actions[1].payload["parse_error"] == "FormatError"
    assert (observations[0].payload["role"], observations[0].payload["tool_call_id"]) == ("tool", "f1")
    assert [o.step for o in observations] == [0, 1]


def test_mini_responses_reasoning_is_that_of_its_items() -> None:
    document = mini_responses()
    item = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "It is light."}],
        "encrypted_content": "x",
    }
    document["messages"][2]["output"].insert(0, item)
    actions = of("action", read(document))
    assert [a.payload.get("reasoning") for a in actions] == ["It is light.", None]


def test_swe_0_demonstrations_are_never_steps_and_batch_costs_never_ours() -> None:
    imported = read(swe_0(), "acme__anvil-1")
    instructions = of("instruction", imported)
    assert [(i.payload["position"], i.payload["is_demo"]) for i in instructions] == [
        (0, False), (1, True), (2, True), (3, False),
    ]  # fmt: skip
    (end,) = of("end", imported)
    assert end.payload["cost_usd"] == 0.48
    assert json.loads(end.extra or "")["model_stats"] == {"total_cost": 139.4}
    first = of("observation", imported)[0]
    assert (first.payload["raw"], first.payload["rendered"]) == ("anvil.py", "anvil.py\n(Open file: n/a)")
    assert "duration_s" not in first.payload
    assert isinstance(json.loads(first.extra or "")["state"], str)
    assert imported.instance_id == "acme__anvil-1"


@pytest.mark.parametrize("field", ["messages", "query"])
def test_swe_1_prompts_can_be_rebuilt(field: str) -> None:
    document = swe_1(field=field)
    actions = of("action", read(document))
    for step, action, rebuilt in zip(document["trajectory"], actions, rebuilt_prompts(document, actions), strict=True):
        assert rebuilt == step[field]
        told = json.loads(action.extra or "")["prompt"]
        assert action.usage is not None
        assert action.usage["prompt_hash"] == sha256_of(rebuilt[: told["length"]])
    assert json.loads(actions[2].payload.get("tool_calls") or "[]") == []
    assert actions[2].payload["parse_error"] == "no action in the reply"
    assert actions[1].payload["text"] == "Build."
    assert json.loads(actions[1].extra or "")["history"]["content"] == "Build it."


def test_swe_1_replies_refused_or_written_by_the_harness() -> None:
    def step(response: str, action: str, observation: str = "", **more: Any) -> Obj:
        told = {"response": response, "thought": response, "action": action, "observation": observation}
        return {**told, "state": {"working_dir": "/"} if observation else {}, "execution_time": 0.0, **more}

    def said(step: Obj) -> list[Obj]:
        reply = {
            "role": "assistant",
            "content": step["response"],
            "thought": step["response"],
            "action": step["action"],
        }
        return [{**reply, "agent": "main"}, {"role": "user", "content": step["observation"], "agent": "main"}]

    refused = [step("I wonder.", ""), step("I edit.", "vim a.py")]
    kept = [step("I look.", "ls", "a.py"), step("Exit due to cost limit", "", "Exited (autosubmitted)")]
    history = [{"role": "user", "content": "Fix it.", "agent": "main"}, *(m for s in kept for m in said(s))]
    document = {"trajectory": [*refused, *kept], "history": history, "info": {"swe_agent_version": "1.1.0"}}
    imported = read(document)
    actions = of("action", imported)
    assert [(a.actor, a.payload.get("command")) for a in actions] == [
        ("agent", None), ("agent", None), ("agent", "ls"), ("system", None),
    ]  # fmt: skip
    assert ["not_in_prompt" in json.loads(a.extra or "{}") for a in actions] == [True, True, False, False]
    assert actions[1].payload["parse_error"] == "nothing executed: the harness refused the action and asked again"
    assert [o.step for o in of("observation", imported)] == [2, 3]
    assert lost(document, imported) == set()


def sha256_of(messages: list[Any]) -> str:
    return hashlib.sha256(orjson.dumps(messages, option=orjson.OPT_SORT_KEYS)).hexdigest()


def rebuilt_prompts(document: Obj, actions: list[Event]) -> Iterator[list[Any]]:
    """The prompts of each step, from the history and the differences kept in `extra.prompt`."""
    shown: list[Any] = copy.deepcopy(document["history"])
    for action in actions:
        told = json.loads(action.extra or "{}").get("prompt")
        if told is None:
            continue
        for change in told.get("changes", []):
            i = change["index"]
            if "whole" in change:
                shown[i : i + 1] = [change["whole"]]
                continue
            put = dict(change["set"])
            if isinstance(put.get("content"), dict):
                base = shown[i]["content"]
                text = base if isinstance(base, str) else "".join(p["text"] for p in base)
                shape = put["content"]["shape"]
                put["content"] = text if shape is None else [{**shape[0], "text": text}]
            kept = {k: v for k, v in shown[i].items() if k not in change.get("drop", [])}
            shown[i] = {**kept, **put}
        yield shown[: told["of"]]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"messages": None}, "`messages` is null"),
        ({"messages": {}}, "`messages` is an object"),
        ({"messages": [{"role": "user"}, "text"]}, "`messages[1]` is a string"),
        ({"messages": [["role"]]}, "`messages[0]` is a list"),
    ],
)
def test_what_is_not_as_the_format_is_written_is_rejected(change: Obj, where: str) -> None:
    told, parsed = inspect(orjson.dumps({**mini_1(), **change}))
    source = SourceFile("p", "s", "f", "c", told.version, "i")
    (one,) = IMPORTERS[told.format].read(parsed, source)
    assert isinstance(one, Rejected)
    assert one.reason == "malformed"
    assert where in one.detail


@pytest.mark.parametrize("content", [None, [], [None, 3], [{"type": "image"}], {"a": 1}, 5, ""])
def test_odd_contents_survive(content: Any) -> None:
    document = mini_1()
    document["messages"][2]["content"] = document["messages"][3]["content"] = content
    assert read(document).n_steps == 5


HOSTILE: list[Any] = [
    None, "", 0, -1, 2**63, 2**70, 1e300, float("nan"), float("inf"), True, [], {}, [None], [[]], {"": ""}, "\ud800", "\x00",
    {"role": "assistant"}, ["a"], "x" * 2000, {"content": None}, [{"text": 3}], {"choices": [3]}, {"choices": []}, "{", "[[",
]  # fmt: skip


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def mutate(document: Any, picks: list[int], value: Any) -> Any:
    """A copy in which one value, chosen by walking down, is another."""
    document = copy.deepcopy(document)
    here, keys = document, []
    for pick in picks:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = keys[pick % len(keys)]
        if not isinstance(here[key], dict | list) or pick % 5 == 4 or pick == picks[-1]:
            here[key] = value
            break
        here = here[key]
    return document


MUTATED = st.builds(
    mutate,
    st.sampled_from([s[1] for s in SAMPLES.values()]),
    st.lists(st.integers(0, 40), min_size=1, max_size=8),
    st.sampled_from([*HOSTILE, nested(200), nested(600)]),
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(documents=st.lists(MUTATED, min_size=10, max_size=25), cut=st.integers(0, 4000))
def test_hostile_documents_end_as_trajectories_or_rejects(
    documents: list[Any], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("hostile")
    for i, document in enumerate(documents):
        data = json.dumps(document).encode()
        write(root / "files" / f"{i}.traj.json", data if i else data[:cut])
    lake = Lake(root / "lake")
    report = import_paths(lake, [root / "files"])
    assert report.files == len(documents) == report.imported + report.known + report.rejected
    rejects = lake.read("rejects").to_pylist()
    assert {r["reason"] for r in rejects} <= set(REASONS)
    assert sum(report.reasons.values()) == report.rejected == len(rejects)
    assert all(r["raw"] == Path(r["path"]).read_bytes() or r["raw"] in Path(r["path"]).read_bytes() for r in rejects)
    again = import_paths(lake, [root / "files"])
    assert (again.events, again.imported, again.rejected) == (0, 0, report.rejected)
    assert len(lake.read("rejects")) == len(rejects)
