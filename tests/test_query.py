"""Views over a lake: every table, versions, upcasting, pushdown, and nothing but reading."""

from __future__ import annotations

import os
import signal
import threading
from decimal import Decimal
from pathlib import Path

import duckdb
import lakes
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from schemas.tables import TABLES
from schemas.upcast import UPCASTERS
from stepwell import query
from stepwell.critics.run import judge_new
from stepwell.curation.masks import MaskRule, mask_new
from stepwell.errors import LakeError, UnknownName, UsageError
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog


def ask(lake: Lake, sql: str, **versions: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = query.run(query.connect(lake, versions), sql).to_pylist()
    return rows


def test_an_empty_lake_has_every_table_and_view_with_its_columns(lake: Lake) -> None:
    connection = query.connect(lake)
    for spec in [*TABLES.values(), *query.VIEWS.values()]:
        answer = query.run(connection, f"SELECT * FROM {spec.name}")
        assert (len(answer), answer.column_names) == (0, [c.name for c in spec.columns])


def test_views_say_what_the_log_says(lake: Lake) -> None:
    lakes.build(lake)
    refresh(lake)
    judge_new(lake)
    mask_new(lake, MaskRule())
    log = EventLog(lake).read()
    connection = query.connect(lake)
    ids = query.run(connection, "SELECT event_id, corpus FROM events ORDER BY event_id").to_pylist()
    assert ids == log.select(["event_id", "corpus"]).sort_by("event_id").to_pylist()
    for view, n in (("verdicts", 60), ("masks", 30), ("outcomes", 5), ("trajectories", 5), ("steps", 30)):
        assert query.run(connection, f"SELECT count(*) AS n FROM {view}").to_pylist() == [{"n": n}]
    for spec in query.VIEWS.values():
        answer = query.run(connection, f"SELECT * FROM {spec.name}")
        assert answer.column_names == [c.name for c in spec.columns]
        if "recorded_at" in answer.column_names:
            assert answer.schema.field("recorded_at").type == pa.timestamp("us", tz="UTC")


def test_retracted_verdicts_are_left_out_and_taken_down_trajectories_too(lake: Lake) -> None:
    events = lakes.build(lake)
    target = next(e for e in events if e.kind == "verdict" and e.trajectory_id == "t-good-a")
    gone = {"target_event": target.event_id, "action": "supersede"}
    retract = Event("retraction", "t-good-a", "demo", "human", gone, target.step)
    down = Event("retraction", "t-loop-a", "demo", "human", {"action": "takedown"})
    EventLog(lake).append([retract, down], "retract")
    counts = ask(lake, "SELECT trajectory_id, count(*) AS n FROM verdicts WHERE corpus = 'demo' GROUP BY ALL")
    assert counts == [{"trajectory_id": "t-good-a", "n": 4}]


def test_a_version_stays_what_it_was(lake: Lake) -> None:
    events = lakes.build(lake)
    before = EventLog(lake).version
    assert before is not None
    judge_new(lake)
    assert ask(lake, "SELECT count(*) AS n FROM events", events=before) == [{"n": len(events)}]
    with pytest.raises(UnknownName, match="unknown table 'datasets/x'"):
        query.connect(lake, {"datasets/x": 0})
    with pytest.raises(UsageError, match=r"has no version 99; allowed: 0 to \d"):
        query.connect(lake, {"events": 99})
    with pytest.raises(UsageError, match="no rows yet"):
        query.connect(lake, {"models": 0})


def test_corpora_with_spaces_slashes_and_escapes_keep_their_names(lake: Lake) -> None:
    names = ["a b", "a/b", "a%20b", "a=b", "é'x"]
    for name in names:
        EventLog(lake).append(lakes.trajectory(f"t {name}", [lakes.Step("view")], corpus=name), name)
    found = ask(lake, "SELECT DISTINCT corpus FROM events ORDER BY corpus")
    assert [r["corpus"] for r in found] == sorted(names)
    assert ask(lake, "SELECT DISTINCT trajectory_id AS t FROM events WHERE corpus = 'a%20b'") == [{"t": "t a%20b"}]


def test_filters_and_projections_reach_the_files(lake: Lake) -> None:
    lakes.build(lake)
    asked = "EXPLAIN SELECT event_id FROM events WHERE corpus = 'demo' AND kind = 'action'"
    text = str(query.connect(lake).execute(asked).fetchall())
    assert text.count("READ_PARQUET") == 1, "the other corpus is not read"
    assert "kind = 'action'" in text
    assert "instruction" not in text


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO 'x.csv'",
        "DROP VIEW events",
        "SELECT 1; SELECT 2",
        "SET threads = 1",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'",
        "PRAGMA database_list",
        "",
        "SELECT * FROM read_text('pyproject.toml')",
        "SELECT * FROM read_parquet('other.parquet')",
        "SELECT * FROM glob('*')",
        "SELECT * FROM 'pyproject.toml'",
        "SELECT * FROM lake",
        "SELECT nonsense FROM events",
        "SELECT getenv('HOME')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM read_json('/etc/passwd')",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
        "SELECT * FROM read_duckdb('x.db')",
        "SELECT * FROM read_csv('http://127.0.0.1:1/x')",
        "SELECT * FROM 's3://bucket/x.parquet'",
        "SELECT * FROM query('COPY (SELECT 1) TO ''x''')",
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''/etc/passwd'')'))",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM enable_logging()",
        "SELECT * FROM arrow_scan(1, 1, 1)",
        "SELECT * FROM pandas_scan(1)",
        "LOAD httpfs",
        "EXPORT DATABASE 'x'",
        "CREATE SECRET s (TYPE s3)",
        "CALL pragma_version()",
        "CREATE TABLE t AS SELECT 1",
        "PRAGMA enable_profiling",
        "PREPARE q AS SELECT 1",
        "CHECKPOINT",
    ],
)
def test_anything_but_reading_the_lake_is_refused(lake: Lake, sql: str) -> None:
    lakes.build(lake)
    with pytest.raises(UsageError):
        query.run(query.connect(lake), sql)


def test_the_connection_itself_is_closed_to_other_files_and_settings(lake: Lake, tmp_path: Path) -> None:
    lakes.build(lake)
    connection = query.connect(lake)
    for sql in (
        f"COPY (SELECT 1) TO '{tmp_path}/x.csv'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(sql)


def test_a_file_of_the_lake_cannot_be_overwritten_through_run(lake: Lake) -> None:
    events = lakes.build(lake)
    handle = lake.table("events")
    assert handle is not None
    for option in ("", " (FORMAT parquet, USE_TMP_FILE false)"):
        for prefix in ("", "EXPLAIN ANALYZE ", "SELECT 1; "):
            with pytest.raises(UsageError, match="allowed: one SELECT"):
                query.run(query.connect(lake), f"{prefix}COPY (SELECT 1) TO '{handle.file_uris()[0]}'{option}")
    assert len(EventLog(lake).read()) == len(events)


ENDLESS = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE (a.range * b.range) % 7 = 3"


def test_a_letter_where_duckdb_wants_hexadecimal_digits_is_refused(lake: Lake) -> None:
    with pytest.raises(UsageError, match="outside ASCII"):
        query.run(query.connect(lake), "SELECT x'é'")


def test_nothing_is_written_and_memory_time_and_rows_are_limited(lake: Lake, tmp_path: Path) -> None:
    lakes.build(lake)
    limits = query.Limits(seconds=5, memory="200MB", rows=1000)
    connection = query.connect(lake, limits=limits)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"stopped after 0\.5 s"):
        query.run(connection, ENDLESS, limits=query.Limits(seconds=0.5))
    with pytest.raises(UsageError, match="more than 1000 rows; add a LIMIT"):
        query.run(connection, "SELECT * FROM range(100000)", limits=limits)
    large = "SELECT range, hash(range) FROM range(30000000) ORDER BY hash(range)"
    with pytest.raises(UsageError, match="needs more than 200MB of memory"):
        query.run(connection, large, limits=query.Limits(60, "200MB"))
    assert query.run(connection, "SELECT count(*) AS n FROM trajectories").to_pylist() == [{"n": 0}]
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UsageError, match="'lots' is no size"):
        query.connect(lake, limits=query.Limits(memory="lots"))
    for memory, said in (
        ("-5GB", "'-5GB' is no size; allowed: a number"),
        ("1KB", "'1KB' is too little to open the lake"),
    ):
        with pytest.raises(UsageError, match=said):
            query.connect(lake, limits=query.Limits(memory=memory))


def test_columns_of_one_name_get_names_that_are_nowhere_else(lake: Lake) -> None:
    assert ask(lake, "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a") == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]


def test_what_arrow_has_no_type_for_is_the_text_that_duckdb_writes(lake: Lake) -> None:
    sql = (
        "SELECT INTERVAL 14 MONTH AS i, {size: INTERVAL 1 DAY} AS s, [union_value(a := $n)] AS u, '101'::BIT AS b, "
        "TIMETZ '10:00:00+05' AS t, 7 AS i, [1.5] AS d, 'x'::ENUM ('x') AS e ORDER BY ALL"
    )
    (row,) = query.run(query.connect(lake), sql, {"n": 1}).to_pylist()
    assert [*row.values()] == [
        "1 year 2 months",
        "{'size': 1 day}",
        "[1]",
        "101",
        "10:00:00+05",
        7,
        [Decimal("1.5")],
        "x",
    ]


def test_an_interrupt_stops_the_query_and_not_the_connection(lake: Lake) -> None:
    connection = query.connect(lake)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        query.run(connection, ENDLESS, limits=query.Limits(60))
    assert query.run(connection, "SELECT 1 AS n").to_pylist() == [{"n": 1}]


def test_everything_can_be_read_as_of_a_version_of_events(lake: Lake) -> None:
    versions = []
    for number in (1, 2, 3):
        EventLog(lake).append(lakes.good_repair(f"t-{number}"), str(number))
        versions.append(EventLog(lake).version)
        if number < 3:
            refresh(lake)
    counts = "SELECT count(DISTINCT trajectory_id) AS n, (SELECT count(*) FROM trajectories) AS folded FROM events"
    for number, version in enumerate(versions, 1):
        assert version is not None
        pinned = query.as_of(lake, version)
        folded = min(number, 2)
        assert query.run(query.connect(lake, pinned), counts).to_pylist() == [{"n": number, "folded": folded}]
        assert query.folded_from(lake, "steps", pinned["steps"]) == versions[folded - 1]


def test_macros(lake: Lake) -> None:
    lakes.build(lake)
    refresh(lake)
    judge_new(lake)
    connection = query.connect(lake)

    def told(sql: str) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = query.run(connection, sql).to_pylist()
        return rows

    rate = {"n": 5, "k": 3, "rate": 0.6, "low": 0.2307, "high": 0.8824}
    assert told("SELECT rate_of(resolved) AS r FROM trajectories") == [{"r": rate}]
    assert [r["times"] for r in told("SELECT * FROM loops(3)")] == [4, 4]
    assert told("SELECT trajectory_id, passed_at, wasted FROM wasted_steps() WHERE wasted > 0") == [
        {"trajectory_id": "t-waste-b", "passed_at": 4, "wasted": 2}
    ]
    firsts = {r["trajectory_id"]: r["first_step"] for r in told("SELECT * FROM first_errors('ground-truth@1')")}
    assert firsts == {"t-good-a": 1, "t-good-b": 1, "t-loop-a": 0, "t-loop-b": 0, "t-waste-b": 0}
    counts = {r["category"]: r["steps"] for r in told("SELECT * FROM category_counts('rules@1')")}
    found = told(
        "SELECT count(DISTINCT (trajectory_id, step)) AS n FROM verdicts WHERE 'step_repetition' IN categories"
    )
    assert found == [{"n": counts["step_repetition"]}]
    costs = told("SELECT actor, sum(calls)::INT AS calls, round(sum(cost_usd), 2) AS usd FROM costs() GROUP BY actor")
    assert costs == [{"actor": "agent", "calls": 30, "usd": 0.34}]
    tools = "['cd /x && FOO=1 python -m pytest', 'ls', '/usr/bin/sed -i', '', 'sudo git log']"
    assert told(f"SELECT list_transform({tools}, lambda c: tool(c)) AS t") == [
        {"t": ["python", "ls", "sed", None, "git"]}
    ]


def test_views_of_calls_and_lineage(lake: Lake) -> None:
    events = lakes.build(lake)
    refresh(lake)
    version = lake.replace("datasets/srft", dataset_row("r1", "srft", "t-good-a"), {})
    asked = "SELECT relation, from_kind, from_id FROM lineage_edges WHERE kind = 'row' ORDER BY ALL"
    assert ask(lake, "SELECT dataset, version FROM dataset_versions") == [
        {"dataset": "datasets/srft", "version": version}
    ]
    assert [tuple(r.values()) for r in ask(lake, asked)] == [
        ("drawn from", "trajectory", "t-good-a"), ("learns", "event", "a"), ("learns", "event", "b"),
        ("weighted by", "event", "m"),
    ]  # fmt: skip
    assert ask(lake, f"SELECT kind FROM lineage_nodes WHERE id = 'datasets/srft@{version}#r1'") == [{"kind": "row"}]
    n = len([e for e in events if e.usage])
    assert ask(lake, "SELECT count(*) AS n, count(tokens_in) AS k FROM calls") == [{"n": n, "k": n}]


def test_a_refusal_says_what_is_allowed(lake: Lake) -> None:
    with pytest.raises(UsageError, match="holds COPY; allowed: one SELECT"):
        query.run(query.connect(lake), "COPY (SELECT 1) TO 'x.csv'")
    with pytest.raises(UsageError, match=r"Tables: events, trajectories.*docs/schema\.md"):
        query.run(query.connect(lake), "SELECT * FROM nothing")


def test_parameters_are_bound(lake: Lake) -> None:
    lakes.build(lake)
    connection = query.connect(lake)
    hostile = "x' OR true --"
    assert query.run(connection, "SELECT count(*) AS n FROM events WHERE corpus = ?", [hostile]).to_pylist() == [
        {"n": 0}
    ]
    answer = query.run(connection, "SELECT $a || 'y' AS v", {"a": "x"})
    assert answer.to_pylist() == [{"v": "xy"}]


def test_column_mapping_is_refused(lake: Lake) -> None:
    rows = TABLES["rejects"].schema.empty_table()
    write_deltalake(lake.path("rejects"), rows, configuration={"delta.columnMapping.mode": "name"})
    assert DeltaTable(lake.path("rejects")).metadata().configuration["delta.columnMapping.mode"] == "name"
    with pytest.raises(LakeError, match=r"table 'rejects' uses columnMapping.*Rewrite the table"):
        query.connect(lake)


def test_datasets_have_a_view_each_and_one_together(lake: Lake) -> None:
    row = dataset_row("r1", "srft")
    lake.replace("datasets/srft", row, {})
    lake.replace("datasets/odd-name", dataset_row("r2", "odd-name"), {})
    connection = query.connect(lake)
    assert query.run(connection, "SELECT row_id FROM dataset_srft").to_pylist() == [{"row_id": "r1"}]
    assert query.run(connection, 'SELECT row_id FROM "dataset_odd-name"').to_pylist() == [{"row_id": "r2"}]
    recipes = query.run(connection, "SELECT recipe FROM datasets ORDER BY recipe").to_pylist()
    assert recipes == [{"recipe": "odd-name"}, {"recipe": "srft"}]


def test_an_object_store_is_read_through_a_pyarrow_dataset(lake: Lake) -> None:
    lakes.build(lake)
    local = ask(lake, "SELECT event_id, corpus, action.command FROM events ORDER BY event_id")
    lake.local = False
    lake.dataset_names = list  # type: ignore[method-assign]
    assert ask(lake, "SELECT event_id, corpus, action.command FROM events ORDER BY event_id") == local
    with pytest.raises(UsageError):
        query.run(query.connect(lake), "SELECT * FROM read_text('pyproject.toml')")


def test_every_upcaster_has_its_sql() -> None:
    assert query.UPCASTS.keys() == UPCASTERS.keys()


def dataset_row(row_id: str, recipe: str, trajectory_id: str = "t", corpus: str = "demo") -> pa.Table:
    row = {
        "row_id": row_id, "recipe": recipe, "method": "srft", "split": "train", "trajectory_id": trajectory_id,
        "corpus": corpus, "task_id": "task-1", "messages": "[]", "steps": [0, 1], "weights": [1.0, 0.0],
        "event_ids": ["a", "b"], "mask_event_ids": ["m"], "input_ids": [1, 2], "labels": [-100, 2], "n_tokens": 2,
        "n_trained_tokens": 1, "n_masked_steps": 1,
    }  # fmt: skip
    return pa.Table.from_pylist([row], schema=query.DATASET.schema)


def test_the_greatest_text_is_whole_however_a_file_says_it(lake: Lake) -> None:
    events = [
        Event("instruction", "t", "c", "system", {"position": i, "content": c * 5_000}) for i, c in enumerate("ab")
    ]
    EventLog(lake).append([Event("start", "t", "c", "system", {"agent": "a"}), *events], "b")
    told = query.run(
        query.connect(lake), "SELECT max(content) AS most, min(content) AS least FROM instructions"
    ).to_pylist()
    assert told == [{"most": "b" * 5_000, "least": "a" * 5_000}]


@pytest.mark.parametrize("name", ["lac été", "a #1", "q&a;b", "{x}", "100%"])
def test_a_lake_may_be_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    lake = Lake(tmp_path / name / "lake")
    lakes.build(lake)
    refresh(lake)
    assert ask(lake, "SELECT count(*) AS n FROM events") == [{"n": EventLog(lake).read().num_rows}]
    assert ask(lake, "SELECT count(*) AS n FROM trajectories") == [{"n": 5}]


@pytest.mark.parametrize("name", ["a[b]", "a*", "a?", "a^b", "a|b", "a\\b", "a%20b", "a\nb"])
def test_a_folder_that_would_be_read_as_another_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LakeError, match=r"in its path.*Name another"):
        Lake(tmp_path / name / "lake")
