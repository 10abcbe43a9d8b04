"""Exactly once, under fire: eight processes import overlapping folders and are killed at random moments, again and again.

Afterwards every trajectory is there once and whole, as a single import of everything leaves it: the lake is compared with a
clean one event by event. Appends that are lost while they are reported as done (delta-rs #3736) show in the journal the
processes keep of their commits, even where another process writes the same facts later. STEPWELL_KILLS sets how many
processes are killed; a run of 100 takes minutes.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest
from trajectory_files import instance_report, mini_1, write

from stepwell.importers.run import import_paths
from stepwell.lake import Lake
from stepwell.log import EventLog

ROOT = Path(__file__).parent.parent
KILLS = int(os.environ.get("STEPWELL_KILLS", "10"))
N, N_PROCESSES, N_FOLDERS = max(48, 3 * KILLS), 8, 4
SEED = 20261121
WORKER = """
import sys
from stepwell.importers.run import import_paths
from stepwell.lake import Lake

class Noted(Lake):
    def commit_once(self, handle, name, rows, app="stepwell"):
        done = super().commit_once(handle, name, rows, app)
        if done:
            with open(sys.argv[2], "a") as journal:
                journal.write(f"{name} {rows.column('batch_id')[0]} {len(rows)}\\n")
        return done

print("ready", flush=True)
import_paths(Noted(sys.argv[1]), sys.argv[3:], corpus="c", batch_events=20)
"""
"""An import in a process of its own, a trajectory or two a batch; every commit it was told is done goes into a journal."""


def folders(root: Path) -> list[list[Path]]:
    """A run of N trajectories with reports and broken files, in folders that overlap; copies under other names among them.

    Process i is given folders i and i + 1 (of N_FOLDERS): every trajectory is imported by several at once.
    """
    for i in range(N):
        name = f"acme__anvil-{i}"
        document = mini_1(name, f"Task {i}.")
        home = root / str(i % N_FOLDERS)
        path = write(home / "trajs" / f"{name}.traj.json", document)
        if i % 3 == 0:
            write(home / "logs" / name / "report.json", instance_report(i % 2 == 0))
        if i % 8 == 3:
            copy = root / str((i + 1) % N_FOLDERS) / "copies" / f"copy-{i}.json"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
        if i % 6 == 5:
            write(home / "broken" / f"{i}.json", b'{"messages": [' + str(i).encode())
    rows = [{"instance_id": f"row__x-{i}", "messages": mini_1(None, str(i))["messages"]} for i in range(12)]
    for folder in ("0", "2"):
        write(root / folder / "rows.jsonl", b"\n".join(map(orjson.dumps, rows)) + b"\n{broken")
    return [[root / str(i % N_FOLDERS), root / str((i + 1) % N_FOLDERS)] for i in range(N_PROCESSES)]


def start(lake: Lake, given: list[Path]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WORKER, lake.uri, f"{lake.uri}.journal", *map(str, given)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def under_fire(lake: Lake, given: list[list[Path]], kills: int, pick: random.Random) -> Counter[str]:
    """Keep eight importers running, kill one at a random moment until `kills` are, let the last ones end; what happened.

    A process is killed between its first line of output and up to half a second later, so that kills fall on every part
    of its work, commits among them; one that ends by itself is started again.
    """
    told: Counter[str] = Counter()
    running: dict[int, subprocess.Popen[bytes]] = {}
    while told["killed"] < kills:
        for i in range(N_PROCESSES):
            if i not in running:
                running[i] = start(lake, given[i])
                told["started"] += 1
        victim = pick.choice(sorted(running))
        process = running[victim]
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pick.random() / 2)
        process.kill()
        told["killed"] += process.wait() == -9
        process.communicate()
        del running[victim]
        for i, other in list(running.items()):
            if other.poll() is not None:
                told["ended"] += finished(other)
                del running[i]
    for process in running.values():
        told["ended"] += finished(process)
    return told


def finished(process: subprocess.Popen[bytes]) -> int:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-3000:]
    return 1


def events(lake: Lake) -> Counter[tuple[str, str, str]]:
    """(trajectory, kind, event id) -> rows."""
    rows = EventLog(lake).read(columns=["trajectory_id", "kind", "event_id"])
    return Counter(zip(*(rows.column(c).to_pylist() for c in ("trajectory_id", "kind", "event_id")), strict=True))


def claims(lake: Lake) -> dict[tuple[str, str], tuple[int, int, int, frozenset[str]]]:
    """(content, path) -> records, steps, rejected and trajectories that `sources` says."""
    rows = lake.read("sources").to_pylist()
    assert len({(r["content_hash"], r["path"]) for r in rows}) == len(rows)
    return {
        (r["content_hash"], r["path"]): (r["n_records"], r["n_steps"], r["n_rejected"], frozenset(r["trajectory_ids"]))
        for r in rows
    }


def rejected(lake: Lake) -> dict[str, tuple[str, bytes]]:
    rows = lake.read("rejects").to_pylist()
    assert len({r["reject_id"] for r in rows}) == len(rows)
    return {r["reject_id"]: (r["reason"], r["raw"]) for r in rows}


def assert_no_commit_is_lost(lake: Lake) -> int:
    """Every row that a commit was said to have written is there, by that very batch: another's copy would hide a loss."""
    told: Counter[tuple[str, str]] = Counter()
    lines = Path(f"{lake.uri}.journal").read_text().splitlines()
    for name, batch, n in map(str.split, lines):
        told[name, batch] += int(n)
    there: Counter[tuple[str, str]] = Counter()
    for name in ("events", "sources", "rejects"):
        there.update((name, batch) for batch in lake.read(name, columns=["batch_id"]).column(0).to_pylist())
    lost = {key: (n, there[key]) for key, n in told.items() if n > there[key]}
    assert not lost, f"rows said to be written and rows there: {lost}"
    return len(lines)


def assert_claims_are_kept(lake: Lake) -> None:
    """Whatever `sources` claims is in the log, at any moment: nothing that was reported as taken is lost."""
    claimed = {t for _, _, _, ids in claims(lake).values() for t in ids}
    there = Counter(t for t, _, _ in events(lake))
    assert claimed <= there.keys(), f"{len(claimed - there.keys())} trajectories are claimed and not there"


@pytest.mark.slow
def test_every_trajectory_is_there_once_whatever_is_killed(tmp_path: Path) -> None:
    given = folders(tmp_path / "in")
    clean = Lake(tmp_path / "clean")
    import_paths(clean, sorted({f for pair in given for f in pair}), corpus="c")
    lake = Lake(tmp_path / "lake")
    pick = random.Random(SEED)
    told = under_fire(lake, given, KILLS, pick)
    assert_claims_are_kept(lake)
    assert told["killed"] == KILLS
    for i in range(N_PROCESSES):  # whoever was killed is run again, all at once
        given[i].sort(reverse=bool(i % 2))
    for process in [start(lake, pair) for pair in given]:
        told["ended"] += finished(process)
    assert_claims_are_kept(lake)
    n_commits = assert_no_commit_is_lost(lake)
    there, expected = events(lake), events(clean)
    assert max(there.values()) == 1, "an event is stored twice"
    assert there.keys() == expected.keys(), (
        f"{len(expected.keys() - there.keys())} lost, {len(there.keys() - expected.keys())} foreign"
    )
    assert claims(lake) == claims(clean)
    assert rejected(lake) == rejected(clean)
    version = lake.version("events")
    again = import_paths(lake, sorted({f for pair in given for f in pair}), corpus="c")
    assert (again.events, lake.version("events")) == (0, version)
    n = len({t for t, _, _ in there})
    print(f"\n{dict(told)}, {n_commits} commits, {len(there)} events of {n} trajectories, events at version {version}")
