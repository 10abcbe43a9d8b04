"""Every question over a million real-shaped events: from the lake, from plain sorted Parquet files, and from JSON lines.

    python -m tests.bench.questions [EVENTS] [FOLDER]

The recorded lake of the tests, with its verdicts and masks, is copied under new ids until there are so many events. What was
said and seen gets the lengths it has in real logs: quantiles over `stepwell import` of the project's shared files (7,439
steps in 22 formats; DuckDB's `quantile_cont(length(observation), ...)` over `steps`, and so on), the last point drawn in so
that the mean is the real one too: observations 826 characters (824 there), actions 511 (494), instructions 1,449 (1,449),
`extra` 311 (281). An output is stored once, as importers do. Tables other than EVENTS and its folds are empty.

The limit is the same query over one Parquet file a table, sorted by trajectory and step, as DuckDB's COPY writes it: Snappy and
122,880 rows a row group, where the lake has Zstandard and, so that one trajectory is found quickly, groups a quarter as large,
in a file a corpus. Its declared views are the lake's, so the leaner a question is, the faster both are.
The peer is DuckDB over the same events as JSON lines with declared columns. Who has only those must make steps and trajectories
of them: STEPS and TRAJECTORIES do it in one pass each, within the query, and only for the columns a question asks for. All
sides must give the same answer.

Asked as people ask, through `stepwell.query.run`, all sides alike: best of thirty after a first, in turns, one process (JSON
lines: of five). Seconds and ratios are of the clock and of the processor: on a machine that does other things only the latter
can be compared, but who uses both cores where the other side has one row group for one core spends more of it and ends sooner.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import EVENTS
from stepwell import query
from stepwell.critics.run import judge_new
from stepwell.curation.masks import MaskRule, mask_new
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.maintenance import maintain
from tests.golden_lake import stored

ROUNDS = 30
TABLES = ("events", "trajectories", "steps")
STEPS = """SELECT trajectory_id, step, any_value(actor) FILTER (kind = 'action') AS actor,
  any_value(policy) FILTER (kind = 'action') AS policy, any_value(action.text) AS action, any_value(action.command) AS command,
  any_value(action.parse_error) AS parse_error,
  string_agg(coalesce(observation.rendered, observation.raw), chr(10) ORDER BY coalesce(observation.position, 0))
    AS observation,
  arg_max_null(observation.exit_code, (coalesce(observation.position, 0), event_id)) FILTER (kind = 'observation')
    AS exit_code,
  sum(observation.duration_s) AS duration_s
FROM events WHERE kind IN ('action', 'observation') GROUP BY trajectory_id, step HAVING bool_or(kind = 'action')"""
TRAJECTORIES = """SELECT trajectory_id, any_value(corpus) AS corpus,
  coalesce(any_value(start.task_id), any_value(task.task_id)) AS task_id, any_value(task.repo) AS repo,
  any_value(start.agent) AS agent, any_value(start.model) AS model,
  count(DISTINCT step) FILTER (kind IN ('action', 'attempt'))::INTEGER AS n_steps,
  arg_max(outcome.resolved, (coalesce(outcome.rerun, 0), recorded_at))
    FILTER (coalesce(outcome.subject, 'trajectory') = 'trajectory') AS resolved,
  any_value("end".exit_status) AS exit_status, coalesce(any_value(trim("end".submission)), '') <> '' AS submitted,
  coalesce(any_value("end".cost_usd), sum(usage.cost_usd) FILTER (kind IN ('action', 'attempt'))) AS cost_usd,
  count(action.parse_error)::INTEGER AS n_format_errors
FROM events GROUP BY trajectory_id"""
"""What somebody makes of the events who has them as JSON lines only: columns that no question reads are left out."""
Seconds = tuple[float, float]
POINTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
TEXTS = {"observation": "rendered", "action": "text", "instruction": "content"}
LENGTHS = {
    "observation": (0, 1, 42, 104, 459, 1637, 10614, 27000),
    "action": (0, 44, 79, 146, 407, 1231, 5034, 6000),
    "instruction": (5, 76, 112, 998, 1670, 3061, 10133, 17000),
    "extra": (8, 18, 22, 59, 346, 500, 2568, 20000),
}
"""Quantiles of the characters of real texts, at POINTS."""
EXTRA = {"action": 0.46, "observation": 0.63, "instruction": 0.91, "task": 0.94, "end": 0.94, "outcome": 0.28}
"""Share of the events of a kind whose source said something that has no column."""


def base(folder: Path) -> pa.Table:
    """Events of the recorded lake, judged and masked."""
    lake = stored(Lake(folder))
    judge_new(lake)
    for rule in (MaskRule(), MaskRule("random")):
        mask_new(lake, rule)
    return EventLog(lake).read()


def drawn(pick: random.Random, lengths: Sequence[int], words: str) -> str:
    """Words, as many characters as a text of this kind has: even in the logarithm between the points of POINTS."""
    share = pick.random()
    i = bisect_right(POINTS, share) - 1
    low, high = math.log1p(lengths[i]), math.log1p(lengths[i + 1])
    n = round(math.expm1(low + (high - low) * (share - POINTS[i]) / (POINTS[i + 1] - POINTS[i])))
    at = pick.randrange(len(words) - n)
    return words[at : at + n]


def copied(rows: pa.Table, number: int, words: str) -> pa.Table:
    """The same events as other trajectories, with other texts."""
    pick = random.Random(number)
    for name in ("event_id", "caused_by"):
        column = pc.binary_replace_slice(rows.column(name), 0, 8, f"{number:08x}")
        rows = _with(rows, name, column)
    rows = _with(rows, "trajectory_id", pc.binary_join_element_wise(rows.column("trajectory_id"), f"{number:x}", "-"))
    for name, text in TEXTS.items():
        payloads = rows.column(name).to_pylist()
        for payload in payloads:
            if payload is not None:
                payload[text] = drawn(pick, LENGTHS[name], words)
                if "raw" in payload:
                    payload["raw"] = None
        rows = _with(rows, name, pa.array(payloads, EVENTS.schema.field(name).type))
    kept = [
        json.dumps({"source": drawn(pick, LENGTHS["extra"], words)}) if pick.random() < EXTRA.get(kind, 0) else None
        for kind in rows.column("kind").to_pylist()
    ]
    return _with(rows, "extra", pa.array(kept, pa.string()))


def _with(rows: pa.Table, name: str, column: pa.ChunkedArray | pa.Array) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), EVENTS.schema.field(name), column)


def build(lake: Lake, n: int, scratch: Path) -> int:
    """Fill the lake with at least `n` events, fold and compact it; returns how many they are."""
    rows = base(scratch / "base")
    pick = random.Random(0)
    words = " ".join(
        f"{pick.choice(('def', 'return', 'self', 'test'))}_{pick.randrange(10**6):x}" for _ in range(200_000)
    )
    copies = -(-n // len(rows))
    for first in range(0, copies, 20):
        parts = [copied(rows, number, words) for number in range(first, min(first + 20, copies))]
        lake.append(lake.create("events"), "events", pa.concat_tables(parts))
    refresh(lake)
    maintain(lake)
    return copies * len(rows)


def beside(connection: duckdb.DuckDBPyConnection, read: Callable[[str], str]) -> duckdb.DuckDBPyConnection:
    """A connection with the same views over other files: `read` says what is in the place of a table."""
    other = duckdb.connect()
    other.execute("SET TimeZone = 'UTC'")
    other.execute("SET parquet_metadata_cache = true")
    other.execute("CREATE MACRO share(k, n) AS round(k / nullif(n, 0), 4)")
    other.register("_retracted", connection.sql("FROM _retracted").to_arrow_table())
    views = connection.execute(
        "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY view_oid"
    ).fetchall()
    for name, text in views:
        if name.startswith("_events_"):
            other.execute(f"CREATE VIEW {name} AS SELECT * FROM events")
        else:
            other.execute(f"CREATE VIEW {name} AS {read(name)}" if name in TABLES else text)
        if name == "dataset_versions":
            other.execute("DROP MACRO share")
            other.execute(((Path(__file__).parent.parent.parent / "sql") / "_macros.sql").read_text())
    return other


def best(text: str, *connections: duckdb.DuckDBPyConnection, rounds: int = ROUNDS) -> list[Seconds]:
    """Least seconds, of the clock and of the processor, that an answer takes of each connection, asked in turns."""
    times: list[list[Seconds]] = [[] for _ in connections]
    for _ in range(rounds):
        for connection, found in zip(connections, times, strict=True):
            started, worked = time.perf_counter(), time.process_time()
            query.run(connection, text)
            found.append((time.perf_counter() - started, time.process_time() - worked))
    return [(min(clock for clock, _ in found), min(worked for _, worked in found)) for found in times]


def main() -> None:
    """Build, then ask everything of the lake and of plain files, and some of JSON lines."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else scratch)
        lake = Lake(folder / "lake")
        if lake.version("events") is None:
            build(lake, n, folder)
        lake_side = query.connect(lake)
        for name in TABLES:
            order = "trajectory_id" if name == "trajectories" else "trajectory_id, step"
            for kind in ("parquet", "json") if name == "events" else ("parquet",):
                if not (folder / f"{name}.{kind}").exists():
                    writer = _open(lake, name)
                    rows = f"SELECT * FROM {name} ORDER BY {order}"
                    writer.execute(f"COPY ({rows}) TO '{folder / name}.{kind}' (FORMAT {kind})")
        plain = beside(lake_side, lambda name: f"SELECT * FROM read_parquet('{folder / name}.parquet')")
        made = {"events": _json(lake_side, folder / "events.json"), "steps": STEPS, "trajectories": TRAJECTORIES}
        lines = beside(lake_side, made.__getitem__)
        counted = lake_side.sql("SELECT count(*) FROM events").fetchall()[0][0]
        print(f"{counted} events, {(folder / 'events.json').stat().st_size / 1e9:.2f} GB of JSON lines", flush=True)
        print(
            "| question | lake, s | processor | plain Parquet, s | processor | ratio | processor "
            "| JSON lines, s | processor | ratio | processor |"
        )
        print("|---|" + "---:|" * 10)
        for name in query.questions():
            text = query.question(name)
            answers = [query.run(side, text) for side in (lake_side, plain)]
            ours, limit = best(text, lake_side, plain)
            told = f"| {name} | {_written(ours)} | {_written(limit)} | {_ratios(ours, limit, 2)} |"
            if "READ_JSON" in query.explain(lines, text):
                answers.append(query.run(lines, text))
                again, peer = best(text, lake_side, lines, rounds=5)
                ours = min(ours[0], again[0]), min(ours[1], again[1])
                told += f" {_written(peer)} | {_ratios(peer, ours, 1)} |"
            else:
                told += " | | | |"
            print(told, flush=True)
            assert all(answer.equals(answers[0]) for answer in answers), f"{name} has several answers"


def _written(seconds: Seconds) -> str:
    return " | ".join(f"{one:.4f}" for one in seconds)


def _ratios(over: Seconds, under: Seconds, digits: int) -> str:
    return " | ".join(f"{a / b:.{digits}f}" for a, b in zip(over, under, strict=True))


def _open(lake: Lake, name: str) -> duckdb.DuckDBPyConnection:
    """A connection that may write files, with one table of the lake."""
    connection = duckdb.connect()
    handle = lake.table(name)
    assert handle is not None
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET memory_limit = '6GB'")
    connection.execute("SET preserve_insertion_order = false")
    connection.register(name, lake.dataset(handle))
    return connection


def _json(connection: duckdb.DuckDBPyConnection, path: Path) -> str:
    relation = connection.sql("SELECT * FROM events")
    types = ", ".join(f"'{c}': '{t}'" for c, t in zip(relation.columns, relation.types, strict=True))
    return f"SELECT * FROM read_json('{path}', columns = {{{types}}}, format = 'newline_delimited')"


if __name__ == "__main__":
    main()
