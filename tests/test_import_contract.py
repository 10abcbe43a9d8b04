"""The contract of importers, one test over every registered one: nothing lost, the same ids anywhere, no error on odd input."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from format_examples import EXAMPLES, NEVER_LOGGED
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_importers import leaves

from schemas.sources import SOURCES
from schemas.tables import TABLES
from stepwell.event import Event, to_table
from stepwell.importers.base import REASONS, Imported, Rejected, SourceFile
from stepwell.importers.containers import sniff
from stepwell.importers.fidelity import Fidelity
from stepwell.importers.parse import parse
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.run import import_paths
from stepwell.importers.sealed import Seal
from stepwell.importers.sniff import recognise
from stepwell.lake import Lake

CASES = [pytest.param(*e, id=f"{i}-{e[0]}") for i, e in enumerate(EXAMPLES)]
LONG = 20


def read(name: str, data: Any, stem: str = "acme__anvil-7", folder: str = "trajs") -> list[Imported | Rejected]:
    importer = IMPORTERS[name]
    told = recognise(data) if importer.unit == "document" else None
    version = told.version if told and told.format == name else importer.versions[0]
    source = SourceFile(f"{folder}/{stem}", stem, folder, "c", version, "identity")
    return list(importer.read(copy.deepcopy(data), source))


def imported(name: str, data: Any, **where: str) -> list[Imported]:
    found = [one for one in read(name, data, **where) if isinstance(one, Imported)]
    assert found
    return found


def texts_of(data: Any) -> Iterator[str]:
    """Every text of a document but keys; of JSON written as text, and of members of an archive, the texts inside."""
    if isinstance(data, bytes):
        try:
            data = parse(data)
        except Exception:
            return
    if isinstance(data, dict):
        for value in data.values():
            yield from texts_of(value)
    elif isinstance(data, list):
        for value in data:
            yield from texts_of(value)
    elif isinstance(data, str):
        if data[:1] in ("{", "["):
            try:
                yield from texts_of(json.loads(data))
                return
            except ValueError:
                pass
        yield data


def missing(data: Any, events: list[Event]) -> set[str]:
    """Long texts of a document that stand in no event, neither as they are nor inside another text, nor as a time."""
    kept = list(leaves([[e.payload, e.usage, e.extra, e.policy, e.occurred_at] for e in events]))
    whole = {k for k in kept if isinstance(k, str)}
    times = {round(k, 3) for k in kept if isinstance(k, float)}
    joined = "\x00".join(whole | {e.extra or "" for e in events})
    lost = {t for t in set(texts_of(data)) if len(t) > LONG and t not in whole and t not in joined}
    return {t for t in lost if not _is_kept_time(t, times) and json.dumps(t, ensure_ascii=False)[1:-1] not in joined}


def _is_kept_time(text: str, times: set[float]) -> bool:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return False
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(), 3) in times


def test_every_importer_has_an_example() -> None:
    assert {name for name, _, _ in EXAMPLES} == set(IMPORTERS)


@pytest.mark.parametrize(("name", "data", "n_steps"), CASES)
def test_events_are_as_the_log_has_them(name: str, data: Any, n_steps: int | None) -> None:
    found = imported(name, data)
    assert n_steps is None or sum(one.n_steps for one in found) == n_steps
    for one in found:
        actions = [e for e in one.events if e.kind == "action"]
        observations = [e for e in one.events if e.kind == "observation"]
        assert one.events
        assert {e.trajectory_id for e in one.events} == {one.trajectory_id}
        assert [a.step for a in actions] == list(range(len(actions)))
        assert len(actions) in (0, one.n_steps), "attempts count as steps where there are no actions"
        assert len({e.event_id for e in one.events}) == len(one.events)
        assert {o.caused_by for o in observations} <= {a.event_id for a in actions}
        assert len({(o.step, o.payload["position"]) for o in observations}) == len(observations)
        assert not any("command" in a.payload and "parse_error" in a.payload for a in actions)
        positions = [e.payload["position"] for e in one.events if e.kind == "instruction"]
        assert len(set(positions)) == len(positions)
        calls = [c for a in actions for c in json.loads(a.payload.get("tool_calls") or "[]")]
        assert all(
            isinstance(c["function"]["arguments"], str | None) for c in calls if isinstance(c.get("function"), dict)
        )
        assert all(isinstance(json.loads(e.extra), dict) for e in one.events if e.extra)
        assert sum(e.kind == "start" for e in one.events) <= 1
        assert to_table(one.events, "b", datetime.now(UTC)).num_rows == len(one.events)


TOLD = [c for c in CASES if c.values[2] is not None]


@pytest.mark.parametrize(("name", "data", "n_steps"), TOLD)
def test_no_text_is_lost_and_what_is_hidden_stays_out(name: str, data: Any, n_steps: int | None) -> None:
    events = [e for one in imported(name, data) for e in one.events]
    hidden = {t for h in NEVER_LOGGED.get(name, ()) for t in (h, *texts_of(h))}
    if name in ("swe-agent",):
        data = {
            **data,
            "trajectory": [{k: v for k, v in s.items() if k not in ("messages", "query")} for s in data["trajectory"]],
        }
    assert missing(data, events) <= hidden
    written = "\x00".join(str(k) for k in leaves([[e.payload, e.extra] for e in events]))
    assert not {h for h in hidden if len(h) > LONG and h in written}


@pytest.mark.parametrize(("name", "data", "n_steps"), CASES)
def test_ids_are_the_content_s(name: str, data: Any, n_steps: int | None) -> None:
    here, there = imported(name, data), imported(name, data, stem="copy", folder="elsewhere")
    assert [t.trajectory_id for t in here] == [t.trajectory_id for t in there]
    assert len({t.trajectory_id for t in here}) == len(here)


def write_example(folder: Path, i: int, name: str, data: Any, moved: bool = False) -> Path:
    """An example as a file of its format; `moved` under another name."""
    folder.mkdir(parents=True, exist_ok=True)
    unit, place = IMPORTERS[name].unit, folder / f"{'moved' if moved else 'x'}{i}"
    if unit == "archive":
        with zipfile.ZipFile(place.with_suffix(".eval"), "w", zipfile.ZIP_DEFLATED) as file:
            for member, content in data.items():
                file.writestr(zipfile.ZipInfo(member, (2026, 1, 1, 0, 0, 0)), content)
        return place.with_suffix(".eval")
    lines = b"\n".join(map(orjson.dumps, data)) if unit == "records" and isinstance(data, list) else orjson.dumps(data)
    place = place.with_suffix(".jsonl" if unit == "records" else ".json")
    place.write_bytes(lines)
    return place


@pytest.mark.parametrize(("name", "data", "n_steps"), CASES)
def test_the_format_is_told_from_the_file(name: str, data: Any, n_steps: int | None, tmp_path: Path) -> None:
    assert sniff(write_example(tmp_path, 0, name, data)).format == name


def test_files_are_imported_once_whatever_their_names(lake: Lake, tmp_path: Path) -> None:
    for i, (name, data, _) in enumerate(EXAMPLES):
        write_example(tmp_path / "a", i, name, data)
        write_example(tmp_path / "b" / "c", i, name, data, moved=True)
    first = import_paths(lake, [tmp_path / "a"], corpus="one")
    assert (first.rejected, first.rejected_records, first.records) == (0, 0, first.taken), first.reasons
    assert first.steps == sum(one.n_steps for name, data, _ in EXAMPLES for one in imported(name, data))
    again = import_paths(lake, [tmp_path / "b"], corpus="two")
    n_with_rejects = sum(any(isinstance(one, Rejected) for one in read(name, data)) for name, data, _ in EXAMPLES)
    assert (again.known, again.imported, again.events) == (len(EXAMPLES) - n_with_rejects, n_with_rejects, 0)
    ids = lake.read("events", columns=["event_id"]).column(0).to_pylist()
    assert len(ids) == len(set(ids)) == first.events


def test_every_source_says_what_became_of_its_values(lake: Lake, tmp_path: Path) -> None:
    for i, (name, data, _) in enumerate(EXAMPLES):
        write_example(tmp_path / "in", i, name, data)
    report = import_paths(lake, [tmp_path / "in"])
    told: dict[str, Fidelity] = {}
    for row in lake.read("sources").to_pylist():
        counts = orjson.loads(row["fidelity"])
        assert (counts["records"], counts["taken"]) == (row["n_records"], row["n_records"] - counts["rejected"])
        parts = (Counter(counts[part]) for part in ("source", "columns", "extra"))
        one = Fidelity(counts["records"], counts["taken"], counts["rejected"], *parts)
        name = max((n for n in report.fidelity if row["format"].startswith(n)), key=len)
        told.setdefault(name, Fidelity()).add(one)
    assert {n: f.row() for n, f in told.items()} == {n: f.row() for n, f in report.fidelity.items()}


def test_sources_of_a_lake_from_before_a_column_are_read_and_written(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (write_example(tmp_path / "in", i, *EXAMPLES[i][:2]) for i in (0, 1))
    new = ("n_records", "fidelity")
    before = dataclasses.replace(SOURCES, columns=[c for c in SOURCES.columns if c.name not in new])
    with monkeypatch.context() as patch:
        patch.setitem(TABLES, "sources", before)
        patch.setattr("stepwell.importers.ledger.SOURCES", before)
        import_paths(lake, [first])
    assert not {*new} & {*lake.dataset(lake.create("sources")).schema.names}
    assert lake.read("sources").select(new).to_pylist() == [{"n_records": None, "fidelity": None}]
    (tmp_path / "copy").write_bytes(first.read_bytes())
    assert import_paths(lake, [first, tmp_path / "copy", second]).known == 2
    assert sorted(lake.read("sources").column("n_records").is_null().to_pylist()) == [False, True, True]
    assert lake.read("sources", 1, columns=["fidelity"]).to_pylist() == [{"fidelity": None}]


def sealed(data: Any, keys: set[str]) -> Iterator[Any]:
    """What stands under keys whose content is never logged, also in JSON written as text."""
    if isinstance(data, dict):
        yield from (v for k, v in data.items() if k in keys)
        yield from (found for v in data.values() for found in sealed(v, keys))
    elif isinstance(data, list):
        yield from (found for v in data for found in sealed(v, keys))
    elif isinstance(data, str) and data[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            yield from sealed(json.loads(data), keys)


@contextlib.contextmanager
def seals() -> Iterator[set[str]]:
    """The keys that importers seal while this is open."""
    keys: set[str] = set()
    made = Seal.__init__

    def note(self: Seal, tests: Sequence[str], solutions: Sequence[str]) -> None:
        keys.update(tests, solutions)
        made(self, tests, solutions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Seal, "__init__", note)
        yield keys


HOSTILE: list[Any] = [
    None,
    "",
    0,
    -1,
    2**63,
    2**64 - 1,
    1e300,
    True,
    [],
    {},
    [None],
    [[]],
    {"": ""},
    "\x00",
    {"role": "assistant"},
    ["a"],
    "[1",
    "{",
    {"content": None},
    [{"text": 3}],
    {"choices": [3]},
    {"choices": []},
    [{"id": 5, "function": {"arguments": 5}}],
    "NaN",
    -1e400 * 0,
]
MARK = "a marker of more than twenty characters"
VALUES = st.sampled_from(
    [*(v for v in HOSTILE if v == v), MARK, [MARK], {"key": MARK}, [{"type": "text", "text": MARK}], [[{"a": [MARK]}]]]
)


def mutate(data: Any, picks: list[int], value: Any) -> Any:
    """A copy in which one value, chosen by walking down, is another."""
    data = copy.deepcopy(data)
    here = data
    for i, pick in enumerate(picks):
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = keys[pick % len(keys)]
        if i == len(picks) - 1 or not isinstance(here[key], dict | list) or not here[key]:
            here[key] = value
            break
        here = here[key]
    return data


PLAIN = [e for e in EXAMPLES if IMPORTERS[e[0]].unit != "archive"]
MUTATED = st.tuples(
    st.sampled_from(PLAIN),
    st.lists(st.integers(0, 60), min_size=1, max_size=7),
    VALUES,
    st.lists(st.integers(0, 60), min_size=1, max_size=7),
    VALUES,
)


@settings(
    max_examples=int(os.environ.get("STEPWELL_FUZZ", "250")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(MUTATED)
@example((next(e for e in PLAIN if e[0] == "nebius-swe-agent"), [3, 0, 4], [MARK]))  # a role that is no text
def test_odd_values_end_in_extra_or_a_reject(case: Any) -> None:
    (name, data, n_steps), *rest = case
    for picks, value in zip(rest[::2], rest[1::2], strict=True):
        data = mutate(data, picks, value)
    with seals() as keys:
        found = read(name, data)
    assert found, "an importer says something of everything"
    assert {one.reason for one in found if isinstance(one, Rejected)} <= set(REASONS)
    events = [e for one in found if isinstance(one, Imported) for e in one.events]
    to_table(events, "b", datetime.now(UTC))
    told = n_steps is not None and name != "swe-agent" and all(isinstance(one, Imported) for one in found)
    if told and MARK in set(texts_of(data)) and MARK not in set(texts_of(list(sealed(data, keys)))):
        assert MARK not in missing(data, events)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_random_json_raises_nothing(data: Any) -> None:
    for name, importer in IMPORTERS.items():
        given_data = data if importer.unit != "records" else data if isinstance(data, list) else [data]
        if importer.unit == "archive":
            continue
        for one in read(name, given_data):
            if isinstance(one, Imported):
                to_table(one.events, "b", datetime.now(UTC))
