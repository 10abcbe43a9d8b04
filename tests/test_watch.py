"""A folder that is written to is in the lake: sessions that grow are one trajectory, and a later import finds nothing new."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trajectory_files import instance_report, mini_1, write

from stepwell.errors import UsageError
from stepwell.importers.run import import_paths
from stepwell.lake import Lake
from stepwell.live.following import PATIENCE, Folder
from stepwell.live.watching import Watch
from stepwell.log import EventLog, live

ROOT = Path(__file__).parent.parent
Record = dict[str, Any]
WATCH = [sys.executable, "-c", "from stepwell.cli import main; main()", "watch"]


def claude(session: str, n: int) -> list[Record]:
    """A Claude Code session of n steps: parallel calls whose records interleave with results, a summary, a subagent."""
    records: list[Record] = []

    def add(role: str, content: Any, **more: Any) -> None:
        uuid = f"{session}-{len(records)}"
        parent = more.pop("parent", records[-1]["uuid"] if records else None)
        message = {"role": role, "content": content, **more.pop("message", {})}
        when = f"2026-01-01T00:{len(records) // 60:02}:{len(records) % 60:02}Z"
        records.append({"type": role, "sessionId": session, "uuid": uuid, "parentUuid": parent, "timestamp": when,
                        "version": "2.0", "message": message, **more})  # fmt: skip

    add("user", f"Repair {session}.")
    for i in range(n):
        reply = {"id": f"msg-{i}", "model": "m", "usage": {"input_tokens": 10, "output_tokens": i}}
        add("assistant", [{"type": "text", "text": f"Look {i}."}], message=reply)
        for call in ("a", "b"):
            use = {"type": "tool_use", "id": f"{i}{call}", "name": "Bash", "input": {"command": f"cat {i}{call}"}}
            add("assistant", [use], message=reply)
            result = {"type": "tool_result", "tool_use_id": f"{i}{call}", "content": f"text {i}{call}"}
            add("user", [result])
        records.append({"type": "summary", "summary": f"after {i}", "sessionId": session, "uuid": f"{session}-s{i}"})
    return records


def codex(session: str, n: int) -> list[Record]:
    records: list[Record] = [
        {"type": "session_meta", "timestamp": "2026-01-01T00:00:00Z", "payload": {"id": session, "cwd": "/w"}}
    ]

    def add(kind: str, **payload: Any) -> None:
        when = f"2026-01-01T01:{len(records) // 60:02}:{len(records) % 60:02}Z"
        records.append({"type": kind, "timestamp": when, "payload": payload})

    add("response_item", type="message", role="user", content=[{"type": "input_text", "text": "Repair it."}])
    for i in range(n):
        add("turn_context", model="m")
        add("response_item", type="reasoning", summary=[{"type": "summary_text", "text": f"think {i}"}])
        call = {"command": ["bash", "-lc", f"cat {i}"]}
        add("response_item", type="function_call", name="shell", call_id=f"c{i}", arguments=json.dumps(call))
        add("response_item", type="function_call_output", call_id=f"c{i}", output=f"text {i}")
        used = {"input_tokens": 10 * (i + 1), "output_tokens": i + 1}
        add("event_msg", type="token_count", info={"total_token_usage": used, "last_token_usage": {"input_tokens": 10}})
    return records


def pi(session: str, n: int) -> list[Record]:
    records: list[Record] = [{"type": "session", "id": session, "cwd": "/w", "timestamp": "2026-01-01T00:00:00Z"}]

    def add(kind: str, **more: Any) -> None:
        parent = more.pop("parent", f"e{len(records) - 1}" if len(records) > 1 else None)
        records.append(
            {"type": kind, "id": f"e{len(records)}", "parentId": parent, "timestamp": "2026-01-01T00:00:01Z", **more}
        )

    add("message", message={"role": "user", "content": "Repair it."})
    for i in range(n):
        call = {"type": "toolCall", "id": f"c{i}", "name": "bash", "arguments": {"command": f"cat {i}"}}
        add(
            "message",
            message={"role": "assistant", "model": "m", "content": [call], "usage": {"input": 1, "output": i}},
        )
        add(
            "message",
            message={"role": "toolResult", "toolCallId": f"c{i}", "content": [{"type": "text", "text": f"out {i}"}]},
        )
        add("model_change", modelId=f"m{i}")
    return records


def rewound(session: str) -> list[Record]:
    """A pi session that goes back after two steps and tries another way: the way it left is a trajectory of its own."""
    records = pi(session, 2)
    other = [
        ("message", {"role": "user", "content": "Otherwise."}),
        ("message", {"role": "assistant", "content": "Well."}),
    ]
    for i, (kind, message) in enumerate(other):
        parent = "e2" if i == 0 else f"x{i - 1}"
        records.append({"type": kind, "id": f"x{i}", "parentId": parent, "message": message})
    return records


SESSIONS: dict[str, Callable[[str], list[Record]]] = {
    "claude": lambda s: claude(s, 3), "codex": lambda s: codex(s, 3), "pi": lambda s: pi(s, 3), "rewound": rewound,
}  # fmt: skip


def lines(records: list[Record]) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in records)


def holding(lake: Lake) -> dict[tuple[str, str, int | None], list[tuple[Any, ...]]]:
    """What holds, without event ids: (trajectory, kind, step) -> payload, usage, extra, and what was answered."""
    rows = live(EventLog(lake).read()).to_pylist()
    ids = {r["event_id"]: (r["kind"], r["step"]) for r in rows}
    found: dict[tuple[str, str, int | None], list[tuple[Any, ...]]] = {}
    for r in rows:
        if r["kind"] != "retraction":
            extra = {k: v for k, v in json.loads(r["extra"] or "{}").items() if k != "n_records"}
            cause = None if r["caused_by"] is None else ids[r["caused_by"]]  # KeyError: it answers what does not hold
            what = json.dumps(
                [r[r["kind"]], r["usage"], extra, r["occurred_at"], r["corpus"]], default=str, sort_keys=True
            )
            found.setdefault((r["trajectory_id"], r["kind"], r["step"]), []).append((what, cause, r["actor"]))
    return {k: sorted(v) for k, v in found.items()}


def assert_as_imported(lake: Lake, folder: Path, tmp_path: Path) -> None:
    """What holds is what a clean import of the folder says, no event is there twice, and an import now adds nothing."""
    clean = Lake(tmp_path / f"clean-{time.monotonic_ns()}")
    import_paths(clean, [folder])
    assert holding(lake) == holding(clean)
    ids = Counter(EventLog(lake).read(columns=["event_id"]).column(0).to_pylist())
    assert not ids or max(ids.values()) == 1
    again = import_paths(lake, [folder])
    assert again.events == 0
    assert holding(lake) == holding(clean)


@pytest.mark.parametrize("kind", list(SESSIONS))
def test_a_session_that_grows_is_one_trajectory(lake: Lake, tmp_path: Path, kind: str) -> None:
    """Imported anew after every line: what holds is what the whole file says, whatever changed on the way."""
    records = SESSIONS[kind]("session-1")
    path = tmp_path / "in" / "session.jsonl"
    path.parent.mkdir()
    ids: set[str] = set()
    for n in range(3, len(records) + 1):
        path.write_bytes(lines(records[:n]))
        import_paths(lake, [path.parent])
        ids |= set(EventLog(lake).read(columns=["trajectory_id"]).column(0).to_pylist())
    assert len(ids) == (2 if kind == "rewound" else 1)
    assert_as_imported(lake, path.parent, tmp_path)


@given(cuts=st.lists(st.integers(1, 17), min_size=1, max_size=5), kind=st.sampled_from(list(SESSIONS)))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_states_of_a_session_in_any_order_give_the_last(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], kind: str
) -> None:
    """Older states that come later change nothing; the whole file is among the states."""
    folder = tmp_path_factory.mktemp("order")
    records = SESSIONS[kind]("session-1")
    lake = Lake(folder / "lake")
    states = [min(c, len(records)) for c in cuts]
    states.insert(len(states) // 2, len(records))
    for i, n in enumerate(states):
        path = folder / f"state-{i}" / "in" / "session.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(lines(records[:n]))
        import_paths(lake, [path.parent])
    whole = folder / "whole" / "in"
    whole.mkdir(parents=True)
    (whole / "session.jsonl").write_bytes(lines(records))
    clean = Lake(folder / "clean")
    import_paths(clean, [whole])
    assert holding(lake) == holding(clean)


def test_another_session_under_the_same_id_is_kept_as_a_reject(lake: Lake, tmp_path: Path) -> None:
    first, other = tmp_path / "in" / "a.jsonl", tmp_path / "in" / "b.jsonl"
    first.parent.mkdir()
    first.write_bytes(lines(pi("one", 4)))
    import_paths(lake, [first])
    changed = pi("one", 3)
    changed[2]["message"]["content"][0]["arguments"] = {"command": "rm everything"}
    other.write_bytes(lines(changed))
    before = holding(lake)
    report = import_paths(lake, [other])
    assert (report.reasons, report.rejected) == ({"diverged": 1}, 1)
    assert holding(lake) == before
    (row,) = lake.read("rejects").to_pylist()
    assert row["raw"] == other.read_bytes()


def test_two_trajectories_of_one_file_that_are_refused_are_one_rejected_file(lake: Lake, tmp_path: Path) -> None:
    first, other = tmp_path / "in" / "a.jsonl", tmp_path / "in" / "b.jsonl"
    first.parent.mkdir()
    first.write_bytes(lines(rewound("one")))
    assert import_paths(lake, [first]).trajectories == 2
    other.write_bytes(lines(rewound("one")).replace(b'"arguments": {"command": "', b'"arguments": {"command": "rm '))
    assert other.read_bytes() != first.read_bytes()
    report = import_paths(lake, [other])
    assert (report.files, report.imported, report.rejected) == (1, 0, 1)
    assert (report.trajectories, report.steps, report.reasons) == (0, 0, {"diverged": 2})


def follow(lake: Lake, folder: Path, **rest: Any) -> Watch:
    return Watch(lake, folder, **({"every": 0.1, "settle": 0.3, "notified": False} | rest))


class Running:
    """A watch in a thread, stopped and joined at the end."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.stop = watch, threading.Event()
        self.thread = threading.Thread(target=watch.run, args=(self.stop,))

    def __enter__(self) -> Running:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def until(self, true: Callable[[], bool], seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not come"
            assert self.thread.is_alive()
            time.sleep(0.02)


def steps(lake: Lake) -> int:
    return len(EventLog(lake).read(kinds=["action"]))


@pytest.mark.parametrize("notified", [True, False])
def test_what_is_written_is_readable_while_it_is_written(lake: Lake, tmp_path: Path, notified: bool) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    records = pi("one", 4)
    half = len(lines(records)) // 2
    with Running(follow(lake, folder, notified=notified, settle=60.0)) as running:
        (folder / "new").mkdir()
        path = folder / "new" / "s.jsonl"
        path.write_bytes(lines(records)[:half])  # a line that is cut off waits for its newline
        running.until(lambda: steps(lake) >= 2)
        before = steps(lake)
        with path.open("ab") as file:
            file.write(lines(records)[half:])
        running.until(lambda: steps(lake) == 4)
        assert before < 4
        assert not len(lake.read("rejects"))
    assert_as_imported(lake, folder, tmp_path)


def test_a_document_is_read_when_it_is_whole_and_a_report_joins_later(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    trajectory = json.dumps(mini_1("acme__anvil-1", "Task.")).encode()
    path = folder / "trajs" / "acme__anvil-1.traj.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(trajectory[: len(trajectory) // 2])
    with Running(follow(lake, folder)) as running:
        time.sleep(0.8)
        assert not len(lake.read("rejects")), "half a document is not rejected at once"
        draft = path.with_suffix(".tmp")
        draft.write_bytes(trajectory)
        draft.replace(path)
        running.until(lambda: steps(lake) > 0)
        write(folder / "logs" / "acme__anvil-1" / "report.json", instance_report(True))
        running.until(lambda: len(EventLog(lake).read(kinds=["outcome"])) == 1)
    (outcome,) = EventLog(lake).read(kinds=["outcome"]).to_pylist()
    assert outcome["outcome"]["resolved"] is True
    assert import_paths(lake, [folder]).events == 0


def test_a_session_that_diverges_while_it_grows_is_one_reject_in_the_end(lake: Lake, tmp_path: Path) -> None:
    folder, told = tmp_path / "in", list[dict[str, Any]]()
    folder.mkdir()
    (tmp_path / "first.jsonl").write_bytes(lines(pi("one", 6)))
    import_paths(lake, [tmp_path / "first.jsonl"])
    changed = pi("one", 5)
    changed[2]["message"]["content"][0]["arguments"] = {"command": "rm everything"}
    path = folder / "s.jsonl"
    with Running(follow(lake, folder, settle=60.0, tell=told.append)) as running:
        for i, n in enumerate((6, 9, 12, len(changed))):
            path.write_bytes(lines(changed[:n]))
            running.until(lambda i=i: running.watch.total.passes > i)  # type: ignore[misc]
            assert not len(lake.read("rejects"))
    read = [t["rejected"] for t in told if t["event"] == "read"]
    assert (read[:-1], read[-1]) == ([{}] * (len(read) - 1), {"diverged": 1})
    (row,) = lake.read("rejects").to_pylist()
    assert row["raw"] == path.read_bytes()
    assert running.watch.total.rejected == 1


def test_a_folder_that_is_gone_is_waited_for(lake: Lake, tmp_path: Path) -> None:
    folder, told = tmp_path / "in", list[dict[str, Any]]()
    folder.mkdir()
    with Running(follow(lake, folder, notified=True, tell=told.append)) as running:
        running.until(lambda: bool(told))
        folder.rmdir()
        time.sleep(0.3)
        n = len(told)
        time.sleep(0.5)
        assert len(told) - n <= 6, "ten listings a second at most"
        folder.mkdir()
        (folder / "s.jsonl").write_bytes(lines(pi("one", 2)))
        running.until(lambda: steps(lake) == 2)


def test_what_never_becomes_whole_is_rejected_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_bytes(b'{"messages": [')
    (tmp_path / "lines.jsonl").write_bytes(lines(pi("one", 1)) + b'{"cut')
    folder = Folder(tmp_path, settle=1.0)
    assert not folder.due(0.0).whole
    due = folder.due(2.0)
    assert (due.whole, list(due.begun)) == ([], [tmp_path / "lines.jsonl"])
    assert [p.name for p in folder.due(PATIENCE + 1.0).whole] == ["half.json", "lines.jsonl"]


def test_rotation_truncation_deletion_and_links(lake: Lake, tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "secret.jsonl"
    folder.mkdir()
    outside.write_bytes(lines(codex("outside", 1)))
    (folder / "link.jsonl").symlink_to(outside)
    log = folder / "log.jsonl"
    first, second, third = (lines(pi(name, 2)) for name in ("one", "two", "three"))
    with Running(follow(lake, folder)) as running:
        log.write_bytes(first[:-40])
        running.until(lambda: steps(lake) >= 1)
        with log.open("ab") as file:
            file.write(first[-40:])
        log.rename(folder / "log.jsonl.1")  # the last line is in a file of another name now
        log.write_bytes(second)
        running.until(lambda: steps(lake) == 4)
        log.write_bytes(third)  # cut off and written anew in place
        running.until(lambda: steps(lake) == 6)
        log.unlink()
        time.sleep(0.3)
    (reject,) = lake.read("rejects").to_pylist()
    assert (Path(reject["path"]).name, reject["reason"], reject["raw"]) == ("link.jsonl", "unreadable", b"")
    rows = holding(lake)
    assert len({t for t, _, _ in rows}) == 3
    assert sum(kind == "observation" for _, kind, _ in rows) == 6


def test_no_folder_and_a_corpus_that_no_folder_can_have_are_wrong_usage(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        Watch(lake, tmp_path / "none")
    with pytest.raises(UsageError, match="241 bytes percent-encoded; allowed: at most 240"):
        Watch(lake, tmp_path, corpus="c" * 241)


def start(lake: Lake, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [*WATCH, str(folder), "--lake", lake.uri, "--every", "0.05", "--settle", "0.2", "--json", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_program_ends_cleanly_when_it_is_told_to(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "s.jsonl"
    path.write_bytes(lines(pi("one", 1)))
    process = start(lake, folder)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert (told["event"], told["rejected"]) == ("read", {})
    path.write_bytes(lines(pi("one", 5)) + b'{"type": "mess')
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors.decode()[-2000:]
    end = json.loads(out.splitlines()[-1])
    assert (end["event"], end["waiting"], steps(lake)) == ("end", 1, 5)


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_whenever_it_is_killed(lake: Lake, tmp_path: Path) -> None:
    """Sessions grow while the watch is killed again and again; STEPWELL_KILLS sets how often."""
    pick = random.Random(20261121)
    kills = int(os.environ.get("STEPWELL_KILLS", "3"))
    folder = tmp_path / "in"
    folder.mkdir()
    files = {}
    for i in range(4):
        for name, make in (("claude", claude), ("codex", codex), ("pi", pi)):
            files[folder / f"{name}-{i}.jsonl"] = lines(make(f"{name}-{i}", 3 * kills))
    sent = dict.fromkeys(files, 0)

    def grow(share: float) -> None:
        for path, data in files.items():
            n = int(len(data) * share * pick.uniform(0.5, 1.0))
            with path.open("ab") as file:
                file.write(data[sent[path] : max(n, sent[path])])
            sent[path] = max(n, sent[path])

    for n in range(kills):
        process = start(lake, folder)
        assert process.stdout is not None
        grow((n + 0.5) / kills)
        process.stdout.readline()
        grow((n + 1) / kills)
        time.sleep(pick.random() / 2)
        process.kill()
        process.communicate()
        assert process.returncode == -9
    for path, data in files.items():
        with path.open("ab") as file:
            file.write(data[sent[path] :])
    done = start(lake, folder, "--once")
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors.decode()[-2000:]
    assert_as_imported(lake, folder, tmp_path)
    assert len({t for t, _, _ in holding(lake)}) == len(files)
