"""Every question over a million real-shaped events: from the lake, from plain sorted Parquet files, and some from JSON lines.

    python -m tests.bench.questions [EVENTS] [FOLDER]

The recorded lake of the tests, with its verdicts and masks, is copied under new ids until there are so many events, and every
copy gets outputs of its own (about 400 characters). The limit is the same query over one Parquet file a table, sorted by
trajectory and step; the peer is DuckDB over the same events as JSON lines with a declared schema, which makes steps of them
as it needs them. Best of five after a first, in turns, one process; seconds of the clock and of the processor. On a machine
that does other things the latter can be compared, so the ratio to plain Parquet is theirs; that to JSON lines, most of which
is waiting for the file, is of the clock.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
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

ROUNDS = 5
TABLES = ("events", "trajectories", "steps")
STEPS = """SELECT a.trajectory_id, a.step, a.actor, a.policy, a.action.text AS action, a.action.command AS command,
  a.action.parse_error AS parse_error, o.observation.rendered AS observation, o.observation.exit_code AS exit_code,
  o.observation.duration_s AS duration_s
FROM events a LEFT JOIN events o ON o.kind = 'observation' AND o.trajectory_id = a.trajectory_id AND o.step = a.step
WHERE a.kind = 'action'"""
"""What somebody has who has the events as JSON lines only."""
Seconds = tuple[float, float]
FROM_JSON = ("failures_by_agent", "first_mistake", "masked_share", "tools_used")


def base(folder: Path) -> pa.Table:
    """Events of the recorded lake, judged and masked."""
    lake = stored(Lake(folder))
    judge_new(lake)
    for rule in (MaskRule(), MaskRule("random")):
        mask_new(lake, rule)
    return EventLog(lake).read()


def copied(rows: pa.Table, number: int, words: str) -> pa.Table:
    """The same events as other trajectories, with other outputs."""
    pick = random.Random(number)
    for name in ("event_id", "caused_by"):
        column = pc.binary_replace_slice(rows.column(name), 0, 8, f"{number:08x}")
        rows = rows.set_column(rows.column_names.index(name), EVENTS.schema.field(name), column)
    name = "trajectory_id"
    column = pc.binary_join_element_wise(rows.column(name), f"{number:x}", "-")
    rows = rows.set_column(rows.column_names.index(name), EVENTS.schema.field(name), column)
    payloads = []
    for observation in rows.column("observation").to_pylist():
        if observation is not None:
            at = pick.randrange(len(words) - 800)
            observation["raw"] = observation["rendered"] = words[at : at + pick.randrange(800)]
        payloads.append(observation)
    field = EVENTS.schema.field("observation")
    return rows.set_column(rows.column_names.index("observation"), field, pa.array(payloads, field.type))


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
            connection.sql(text).to_arrow_table()
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
            rows = f"SELECT * FROM {name} ORDER BY {order}"
            for kind in ("parquet", "json"):
                if not (folder / f"{name}.{kind}").exists():
                    writer = _open(lake, name)
                    writer.execute(f"COPY ({rows}) TO '{folder / name}.{kind}' (FORMAT {kind})")
        plain = beside(lake_side, lambda name: f"SELECT * FROM read_parquet('{folder / name}.parquet')")
        lines = beside(
            lake_side, lambda name: STEPS if name == "steps" else _json(lake_side, name, folder / f"{name}.json")
        )
        counted = lake_side.sql("SELECT count(*) FROM events").fetchall()[0][0]
        print(f"{counted} events, {(folder / 'events.json').stat().st_size / 1e9:.2f} GB of JSON lines", flush=True)
        print(
            "| question | lake, s | processor | plain Parquet, s | processor | ratio | JSON lines, s | processor | ratio |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        for name in query.questions():
            text = query.question(name)
            best(text, lake_side, plain, rounds=1)
            ours, limit = best(text, lake_side, plain)
            told = f"| {name} | {ours[0]:.3f} | {ours[1]:.3f} | {limit[0]:.3f} | {limit[1]:.3f} | {ours[1] / limit[1]:.2f} |"
            if name in FROM_JSON:
                (peer,) = best(text, lines, rounds=1)
                told += f" {peer[0]:.1f} | {peer[1]:.1f} | {peer[0] / ours[0]:.0f} |"
            else:
                told += " | | |"
            print(told, flush=True)


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


def _json(connection: duckdb.DuckDBPyConnection, name: str, path: Path) -> str:
    relation = connection.sql(f"SELECT * FROM {name}")
    types = ", ".join(f"'{c}': '{t}'" for c, t in zip(relation.columns, relation.types, strict=True))
    return f"SELECT * FROM read_json('{path}', columns = {{{types}}}, format = 'newline_delimited')"


if __name__ == "__main__":
    main()
