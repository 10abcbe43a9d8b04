"""What is sent over HTTP is checked, on disk before it is acknowledged, and in the lake once, whatever is killed when."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import lakes
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from schemas.kinds import KINDS
from stepwell.errors import LakeError, UsageError
from stepwell.journal import Journal
from stepwell.lake import Lake
from stepwell.listening import folding
from stepwell.live import keeping
from stepwell.live.client import Client
from stepwell.live.keeping import Keeper
from stepwell.live.openapi import MOST_EVENTS, openapi
from stepwell.live.server import Server
from stepwell.live.serving import Settings
from stepwell.live.shapes import packed, unpacked
from stepwell.live.traces import Traces
from stepwell.log import EventLog, live
from stepwell.redaction.report import unfinished
from stepwell.redaction.run import redact
from stepwell.redaction.target import Target
from stepwell.secrets.redact import redactor_of

ROOT = Path(__file__).parent.parent
SERVE = [sys.executable, "-c", "from stepwell.cli import main; main()", "serve"]
SECRET = "ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dF3hJ5"
JSON, LINES = "application/json", "application/x-ndjson"
Sent = dict[str, Any]


def event(
    kind: str = "action", stream: str = "t-1", step: int | None = 0, actor: str = "agent", **payload: Any
) -> Sent:
    told = {"kind": kind, "trajectory_id": stream, "corpus": "runs/one", "actor": actor, "payload": payload}
    return told if step is None else told | {"step": step}


def begun(stream: str = "t-1", n: int = 2) -> list[Sent]:
    events = [event("start", stream, None, "system", agent="toy@1", task_id="task")]
    for i in range(n):
        events.append(event("action", stream, i, text=f"ls {i}", command=f"ls {i}"))
        events.append(event("observation", stream, i, "environment", position=0, raw=f"out {i}", rendered=f"out {i}"))
    return events


def ended(stream: str = "t-1", status: str = "submitted") -> Sent:
    return event("end", stream, None, "environment", exit_status=status)


class Served:
    """A server in this process and a session that talks to it."""

    def __init__(self, url: str, keeper: Keeper, session: aiohttp.ClientSession) -> None:
        self.url, self.keeper, self.session = url, keeper, session

    async def post(
        self, body: Any, type_: str = JSON, path: str = "/v1/events", **headers: str
    ) -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url + path, data=data, headers={"Content-Type": type_, **headers}) as reply:
            raw = await reply.read()
            return reply.status, json.loads(raw) if reply.content_type == JSON else raw, reply.headers

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path, headers=headers) as reply:
            return reply.status, await reply.json()

    async def until(self, true: Callable[[], bool], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not come"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def served(
    lake: Lake, *, token: str | None = None, most: int = 1 << 20, fatal: Callable[[BaseException], None] = lambda e: None,
    **rest: Any,
) -> AsyncIterator[Served]:  # fmt: skip
    """A server; at the end everything is in the lake."""
    journal = Journal(Path(lake.uri) / ".serve")
    keeper = Keeper(lake, journal, **({"every": 0.1, "redactor": redactor_of(lake)} | rest))
    server = Server(keeper, token=token, most=most, fatal=fatal)
    await keeper.start()
    async with aiohttp.ClientSession() as session:
        try:
            yield Served(f"http://127.0.0.1:{await server.start('127.0.0.1', 0)}", keeper, session)
        finally:
            await server.close()
            await keeper.stop()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def rows(lake: Lake, *kinds: str) -> list[dict[str, Any]]:
    found = live(EventLog(lake).read(kinds=[*kinds, "retraction"] if kinds else None)).to_pylist()
    return [r for r in found if r["kind"] in kinds or (not kinds and r["kind"] != "retraction")]


def test_events_are_acknowledged_readable_and_there_once(lake: Lake) -> None:
    async def main() -> None:
        async with served(lake) as at:
            status, told, _ = await at.post(begun())
            assert (status, told["taken"], told["rejected"]) == (200, 5, [])
            await at.until(lambda: len(EventLog(lake).read()) == 5)
            assert {r["event_id"] for r in rows(lake)} == set(told["event_ids"])
            version = lake.version("events")
            again = await at.post(b"\n".join(json.dumps(e).encode() for e in begun()) + b"\n", LINES)
            assert again[:2] == (200, told)
            await at.until(lambda: at.keeper.n_waiting == 0)
            assert lake.version("events") == version
            answer = event("observation", "t-1", 1, "environment", position=1, raw="x") | {
                "caused_by": told["event_ids"][3]
            }
            times = {
                "occurred_at": "2026-01-01T01:00:00+01:00",
                "extra": {"b": 1, "a": None},
                "usage": {"tokens_in": 3.0},
            }
            assert (await at.post([answer | times]))[0] == 200
        (row,) = [r for r in rows(lake, "observation") if r["observation"]["position"] == 1]
        assert (row["caused_by"], row["occurred_at"].isoformat()) == (told["event_ids"][3], "2026-01-01T00:00:00+00:00")
        assert (row["extra"], row["usage"]["tokens_in"]) == ('{"a":null,"b":1}', 3)

    run(main)


def test_what_is_no_event_is_named_and_kept_and_the_rest_is_taken(lake: Lake) -> None:
    bad: list[tuple[Any, str]] = [
        ({"kind": "rumour"}, "kind"),
        (event() | {"step": None}, "action.step"),
        (event(texts="?"), "action.payload.texts"),
        (event() | {"actor": "nobody"}, "action.actor"),
        (event() | {"corpus": "../up"}, "action.corpus"),
        (event() | {"step": 2**31}, "action.step"),
        (event() | {"occurred_at": 12}, "action.occurred_at"),
        (event("retraction", "t-1", None, "system", action="takedown"), "retraction.payload.action"),
        (17, "event"),
    ]

    async def main() -> None:
        async with served(lake) as at:
            status, told, _ = await at.post([begun()[0], *(b for b, _ in bad), begun()[1]])
            assert (status, told["taken"], [r["index"] for r in told["rejected"]]) == (422, 2, list(range(1, 10)))
            for (_, where), rejected in zip(bad, told["rejected"], strict=True):
                assert rejected["reason"] == "malformed"
                assert where in rejected["detail"]
            assert [i is None for i in told["event_ids"]] == [False, *[True] * 9, False]
            status, told, _ = await at.post(b'{"cut\n' + json.dumps(begun()[2]).encode(), LINES)
            assert (status, told["taken"], told["rejected"][0]["reason"]) == (422, 1, "bad_line")
        kept = {r["raw"] for r in lake.read("rejects").to_pylist()}
        assert kept == {json.dumps(b, separators=(",", ":")).encode() for b, _ in bad} | {b'{"cut'}
        assert len(rows(lake)) == 3

    run(main)


def test_no_secret_is_written_anywhere(lake: Lake) -> None:
    async def main() -> None:
        async with served(lake) as at:
            first = event("action", "t-1", 0, text=f"export GITHUB_TOKEN={SECRET}", command="ls")
            status, told, _ = await at.post([first, {"kind": f"token={SECRET}", "x": SECRET}])
            assert (status, told["taken"]) == (422, 1)
            assert SECRET not in json.dumps(told)
            assert (await at.post(spans(0, say=SECRET), path="/v1/traces"))[0] == 200
        assert any("[REDACTED:" in (r["action"]["text"] or "") for r in rows(lake, "action"))

    run(main)
    files = [p for p in Path(lake.uri).rglob("*") if p.is_file()]
    assert any(p.name.startswith("journal") for p in files)
    assert not [p for p in files if SECRET.encode() in p.read_bytes()]
    assert SECRET not in str(rows(lake)) + str(lake.read("rejects").to_pylist())


def test_bodies_are_limited_packed_or_not(lake: Lake) -> None:
    async def main() -> None:
        async with served(lake, most=200_000) as at:
            good = json.dumps(begun()).encode()
            for encoding, body in (("gzip", gzip.compress(good)), ("identity", good)):
                assert (await at.post(body, **{"Content-Encoding": encoding}))[0] == 200
            bomb = gzip.compress(b" " * 50_000_000)
            assert len(bomb) < 200_000
            for status, body, headers in (
                (413, bomb, {"Content-Encoding": "gzip"}),
                (413, b" " * 200_001, {}),
                (400, good, {"Content-Encoding": "gzip"}),
                (400, gzip.compress(good)[:-9], {"Content-Encoding": "gzip"}),
                (415, good, {"Content-Encoding": "br"}),
                (400, b"{", {}),
                (400, b"{}", {}),
                (400, b"[" + b",".join([b"0"] * (MOST_EVENTS + 1)) + b"]", {}),
                (403, good, {"Origin": "http://example.com"}),
            ):
                assert (await at.post(body, **headers))[0] == status
            assert (await at.post(good, "text/plain"))[0] == 415
            assert (await at.get("/none"))[0] == 404
            assert (await at.get("/healthz")) == (200, {"status": "ok"})

    run(main)
    assert len(rows(lake)) == 5


def test_clients_that_stall_hold_up_nobody_and_memory_is_bounded(lake: Lake) -> None:
    most = 100_000
    stalled: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def stall(url: str, n: int, size: int) -> None:
        for _ in range(n):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: {most}\r\n\r\n"
            writer.write(head.encode() + b" " * size)
            await writer.drain()
            stalled.append((reader, writer))

    async def main() -> None:
        async with served(lake, most=most) as at:
            await stall(at.url, 40, 1000)
            assert (await asyncio.wait_for(at.post(begun()), 5))[0] == 200
            await stall(at.url, 34, most - 1)
            assert (await asyncio.wait_for(at.post(begun("t-2")), 5))[0] == 200
            answers = [asyncio.create_task(reader.readuntil(b"}")) for reader, _ in stalled]
            done, waiting = await asyncio.wait(answers, timeout=0.5)
            assert len(done) == 3, "bodies of 32 times the largest size are held, and no more"
            for answer in done:
                assert b" 429 " in answer.result()
                assert b"Retry-After: 1" in answer.result()
            for answer in waiting:
                answer.cancel()
            for _, writer in stalled:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for _, writer in stalled), return_exceptions=True)

    run(main)


def test_folds_follow_what_is_received_and_a_failure_of_theirs_stops_nothing(lake: Lake) -> None:
    said: list[str] = []
    blocked = Path(lake.path("trajectories"))

    async def main() -> None:
        stopped = asyncio.Event()
        async with served(lake) as at:
            folds = asyncio.create_task(folding(lake, stopped, said.append, every=0.1, most=0.3))
            assert (await at.post(begun()))[0] == 200
            await at.until(lambda: len(lake.read("steps")) == 2)
            blocked.rename(f"{blocked}.away")
            blocked.write_text("no table")
            assert (await at.post([ended()]))[0] == 200
            await at.until(lambda: bool(said))
            blocked.unlink()
            Path(f"{blocked}.away").rename(blocked)
            await at.until(lambda: lake.read("trajectories").column("exit_status").to_pylist() == ["submitted"])
            stopped.set()
            await folds

    run(main)
    assert "not up to date" in said[0]


def test_folds_do_not_wait_for_ever_for_quiet(lake: Lake) -> None:
    async def main() -> None:
        stopped = asyncio.Event()
        async with served(lake) as at:
            folds = asyncio.create_task(folding(lake, stopped, print, every=0.3, most=0.5))
            for n in range(100):
                await at.post(begun(f"t-{n}", 1))
                await asyncio.sleep(0.1)
                if len(lake.read("trajectories")):
                    break
            assert len(lake.read("trajectories"))
            stopped.set()
            await folds

    run(main)


def test_a_token_is_needed_where_others_can_reach_it(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--token-env"):
        Settings(host="0.0.0.0")
    with pytest.raises(UsageError, match="no token"):
        Settings(token_env="STEPWELL_NO_TOKEN")
    with pytest.raises(UsageError, match="at most 240"):
        Settings(corpus="c" * 241)
    monkeypatch.setenv("STEPWELL_TEST_TOKEN", "right")
    assert Settings(host="0.0.0.0", token_env="STEPWELL_TEST_TOKEN").token == "right"

    async def main() -> None:
        async with served(lake, token="right") as at:
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer r\udcffght"}):
                assert (await at.post(begun(), **given))[0] == 401
                assert (await at.get("/v1/status", **given))[0] == 401
            assert (await at.get("/healthz"))[0] == (await at.get("/openapi.json"))[0] == 200
            assert (await at.post(begun(), Authorization="Bearer right"))[0] == 200

    run(main)


def test_senders_wait_while_the_lake_takes_nothing_and_nothing_is_lost(lake: Lake) -> None:
    said: list[str] = []
    blocked = Path(lake.path("events"))

    async def main() -> None:
        async with served(lake, most_events=5, tell=said.append) as at:
            blocked.write_text("no table")
            assert (await at.post(begun()))[0] == 200
            status, _, headers = await at.post([ended()])
            assert (status, int(headers["Retry-After"])) == (429, 1)
            await at.until(lambda: bool(at.keeper.failing))
            assert (await at.get("/v1/status"))[1]["full"]
            blocked.unlink()
            await at.until(lambda: at.keeper.n_waiting == 0)
            assert (await at.post([ended()]))[0] == 200

    run(main)
    assert "events wait" in said[0]
    assert len(rows(lake)) == 6


def test_a_silent_trajectory_is_unfinished_until_it_goes_on(lake: Lake) -> None:
    async def main() -> None:
        async with served(lake, idle=0.6) as at:
            await at.post([*begun("quiet"), *begun("whole"), ended("whole"), *begun("late")[1:]])
            await at.until(lambda: len(rows(lake, "end")) == 2)
            assert {r["trajectory_id"]: r["end"]["exit_status"] for r in rows(lake, "end")} == {
                "quiet": "aborted", "whole": "submitted",
            }  # fmt: skip
            version = lake.version("events")
            await at.post(begun("quiet"))  # what is known does not open it again
            await at.until(lambda: at.keeper.n_waiting == 0)
            assert lake.version("events") == version
            await at.post([event("action", "quiet", 2, text="on")])
            await at.until(lambda: len(rows(lake, "end")) == 1)
        async with served(lake, idle=0.6) as at:  # known again after a start
            assert set(at.keeper.lifecycle.open) == {"quiet"}
            await at.until(lambda: len(rows(lake, "end")) == 2)
            await at.post([ended("quiet")])
            await at.until(lambda: rows(lake, "end")[0]["end"]["exit_status"] == "submitted")
        assert len(rows(lake, "end")) == 2
        assert {r["trajectory_id"] for r in rows(lake, "action")} == {"quiet", "whole", "late"}

    run(main)


def test_an_ended_trajectory_stays_ended_when_it_is_sent_again(lake: Lake) -> None:
    async def main() -> None:
        async with served(lake, idle=0.2) as at:
            await at.post([*begun("whole"), ended("whole")])
            await at.until(lambda: len(rows(lake, "end")) == 1)
            await at.post(begun("whole"))
            await at.until(lambda: at.keeper.n_waiting == 0)
            assert not at.keeper.lifecycle.open
        async with served(lake, idle=0.2) as at:  # the same after a start
            await at.post([*begun("whole"), *begun("quiet")])
            await at.until(lambda: len(rows(lake, "end")) == 2)
        assert {r["trajectory_id"]: r["end"]["exit_status"] for r in rows(lake, "end")} == {
            "whole": "submitted", "quiet": "aborted",
        }  # fmt: skip

    run(main)


def test_no_segment_is_deleted_before_it_is_replayed(lake: Lake, tmp_path: Path) -> None:
    """More is acknowledged than may wait, so the lake is written to in the middle of the replay."""

    async def main() -> None:
        left = Keeper(lake, Journal(tmp_path / "j", segment_bytes=1))
        for i in range(6):
            await left.take([unpacked(packed(e)) for e in lakes.good_repair(f"t-{i}")[:3]], [])
        await left.journal.close()  # nothing was committed, as after a kill
        assert len(list((tmp_path / "j").glob("*.jsonl"))) == 6
        again = Keeper(lake, Journal(tmp_path / "j"), most_events=4)
        assert await again.start() == 6
        await again.stop()

    run(main)
    assert len(EventLog(lake).read()) == 18
    assert not list((tmp_path / "j").glob("*.jsonl"))


def test_what_was_taken_out_is_not_taken_again(lake: Lake) -> None:
    async def main() -> None:
        async with served(lake, idle=0.6) as at:
            _, told, _ = await at.post([*begun("down"), *begun("part")])
            first, second = told["event_ids"][6], told["event_ids"][8]
        redact(lake, Target(events=frozenset([first])), "asked")
        redact(lake, Target(down=frozenset(["down"])), "asked")
        before = len(EventLog(lake).read())
        async with served(lake, idle=0.6) as at:
            assert (await at.post([*begun("down"), *begun("part")]))[0] == 200
            new = event("observation", "part", 0, "environment", position=1, raw="x") | {"caused_by": first}
            late = event("observation", "part", 1, "environment", position=1, raw="x") | {"caused_by": second}
            assert (await at.post([new, late, ended("part"), event("action", "down", 2, text="on")]))[0] == 200
            await at.until(lambda: at.keeper.n_waiting == 0)
            counts = (await at.get("/v1/status"))[1]
        assert (counts["received"], counts["events"], counts["known"], counts["closed"]) == (14, 3, 11, 0)
        assert len(EventLog(lake).read()) == before + 3
        assert [r["kind"] for r in EventLog(lake).replay("down").to_pylist()] == ["retraction"]
        (left,) = [r for r in rows(lake, "action") if r["step"] == 0]
        assert "redacted" in left["action"]["text"].lower()
        causes = [r["caused_by"] for r in rows(lake, "observation") if r["observation"]["position"] == 1]
        assert causes == [left["event_id"], second]

    run(main)


def test_no_takedown_comes_between_the_look_and_the_append(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EventLog(lake).append([unpacked(packed(e)) for e in lakes.good_repair("down")[:3]], "b")
    taking = threading.Thread(target=redact, args=(lake, Target(down=frozenset(["down"])), "asked"))
    append = keeping.append_fitting

    def late(*given: Any) -> int:
        taking.start()
        taking.join(1)
        return append(*given)

    async def main() -> None:
        keeper = Keeper(lake, Journal(tmp_path / "j"))
        await keeper.start()
        await keeper.take(lakes.good_repair("down")[3:6], [])
        monkeypatch.setattr(keeping, "append_fitting", late)
        await keeper.stop()

    run(main)
    taking.join()
    assert [r["kind"] for r in EventLog(lake).read().to_pylist()] == ["retraction"]


def test_a_trajectory_taken_down_while_it_is_open_is_not_closed(lake: Lake) -> None:
    async def main() -> None:
        journal = Path(lake.uri, ".serve")
        async with served(lake, idle=0.6) as at:
            await at.post(begun("down"))
            await at.until(lambda: at.keeper.n_waiting == 0)
            for segment in journal.glob("*.jsonl"):
                segment.write_bytes(b"")  # as after many more requests: it is in no segment any more
            redact(lake, Target(down=frozenset(["down"])), "asked")
            await at.until(lambda: not at.keeper.lifecycle.open)
        assert [r["kind"] for r in EventLog(lake).read().to_pylist()] == ["retraction"]

    run(main)


def test_a_takedown_reaches_what_is_held(lake: Lake) -> None:
    async def main() -> None:
        both = spans(0)["resourceSpans"] + spans(0, "other", "Look at it.")["resourceSpans"]
        async with served(lake) as at:
            await at.post([*begun("down"), *begun("t-1")])
            await at.post({"resourceSpans": both}, path="/v1/traces")
            await at.post(spans(1), path="/v1/traces")
            await at.until(lambda: len(rows(lake, "start")) == 4)
            ids = {r["start"]["run_id"]: r["trajectory_id"] for r in rows(lake, "start")}
            target = Target(down=frozenset(["down", ids["talk"]]))
            with pytest.raises(LakeError, match=r"a server writes to .* stop it"):
                redact(lake, target, "asked")
            assert unfinished(lake) == []
        held = Path(lake.uri, ".serve", "journal-00000001.jsonl")
        assert "Repair it." in held.read_text()
        assert redact(lake, target, "asked").done
        requests = [json.loads(line) for line in held.read_text().splitlines()]
        assert {e["trajectory_id"] for e in requests[0]["events"]} == {"t-1"}
        assert [len(r["scopeSpans"][0]["spans"]) for r in requests[1]["traces"]["resourceSpans"]] == [0, 2]
        assert len(requests) == 2
        assert "Repair it." not in held.read_text()
        async with served(lake) as at:  # the other conversation goes on, and what went does not
            await at.post(spans(1, "other", "Look at it."), path="/v1/traces")
            await at.post(spans(2), path="/v1/traces")
            await at.until(lambda: len([r for r in rows(lake, "action") if r["trajectory_id"] == ids["other"]]) == 2)
        assert {r["trajectory_id"] for r in rows(lake)} == {"t-1", ids["other"]}

    run(main)


def test_a_takedown_reaches_what_could_not_be_read(lake: Lake) -> None:
    async def main() -> None:
        odd = [event("action", name, 9, unheard_of="Plain-Dead-Beef-77") for name in ("down", "t-1")]
        sent = [*begun("down"), *begun("t-1"), *odd]

        def kept() -> list[bool]:
            return sorted(bool(row["raw"]) for row in lake.read("rejects").to_pylist())

        async with served(lake) as at:
            await at.post(sent)
            await at.post(spans(0), path="/v1/traces")  # as it is open, its segment of the journal is kept
            await at.until(lambda: kept() == [True, True])
        held = Path(lake.uri, ".serve", "journal-00000001.jsonl")
        assert held.read_text().count("Beef-77") == 2
        assert redact(lake, Target(down=frozenset(["down"])), "asked").done
        assert held.read_text().count("Beef-77") == 1
        assert kept() == [False, True]
        async with served(lake) as at:
            await at.post(sent)
        assert kept() == [False, True]

    run(main)


def spans(n: int, conversation: str = "talk", say: str = "Repair it.") -> dict[str, Any]:
    """A request with the n-th call of a conversation and the tool it ran."""

    def span(i: int, name: str, **attributes: str) -> dict[str, Any]:
        told = {"gen_ai.conversation.id": conversation, **attributes}
        start = 1_760_000_000 + 10 * n + i
        return {
            "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": f"{16 * n + i + 1:016x}", "name": name, "kind": 3,
            "startTimeUnixNano": str(start * 10**9), "endTimeUnixNano": str((start + 1) * 10**9),
            "attributes": [{"key": k, "value": {"stringValue": v}} for k, v in told.items()],
        }  # fmt: skip

    messages = [{"role": "user", "parts": [{"type": "text", "content": say}]}]
    for i in range(n + 1):
        call = {"type": "tool_call", "id": f"c{i}", "name": "bash", "arguments": {"command": f"ls {i}"}}
        messages.append({"role": "assistant", "parts": [call]})
        messages.append(
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": f"c{i}", "response": f"out {i}"}]}
        )
    model = span(
        0, "chat m", **{
            "gen_ai.operation.name": "chat", "gen_ai.request.model": "m",
            "gen_ai.input.messages": json.dumps(messages[:-2]), "gen_ai.output.messages": json.dumps(messages[-2:-1]),
        },
    )  # fmt: skip
    tool = span(1, "execute_tool bash", **{
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "bash", "gen_ai.tool.call.id": f"c{n}",
        "gen_ai.tool.call.result": f"out {n}",
    })  # fmt: skip
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "toy"}, "spans": [model, tool]}]}]}


def binary(request: dict[str, Any]) -> bytes:
    told = json.loads(json.dumps(request))
    for span in told["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId"):
            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return bytes(ParseDict(told, ExportTraceServiceRequest()).SerializeToString())


def test_spans_are_one_trajectory_that_grows(lake: Lake) -> None:
    async def main() -> None:
        async with served(lake) as at:
            assert (await at.post(spans(0), path="/v1/traces"))[:2] == (200, {})
            await at.until(lambda: len(rows(lake, "action")) == 1)
            status, raw, headers = await at.post(binary(spans(1)), "application/x-protobuf", "/v1/traces")
            assert (status, raw, headers["Content-Type"]) == (200, b"", "application/x-protobuf")
            await at.until(lambda: len(rows(lake, "action")) == 2)
            assert (await at.post(b"\xff\xff", "application/x-protobuf", "/v1/traces"))[0] == 400
            assert (await at.post({"resourceSpans": 3}, path="/v1/traces"))[0] == 400
        async with served(lake, idle=0.3) as at:  # the journal still has what may grow
            assert (await at.post(spans(2), path="/v1/traces"))[0] == 200
            await at.until(lambda: len(rows(lake, "action")) == 3)
            await at.until(lambda: not len(at.keeper.traces))
            other = spans(0, "none")
            other["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"] = []
            del other["resourceSpans"][0]["scopeSpans"][0]["spans"][1]
            assert (await at.post(other, path="/v1/traces"))[0] == 200
            await at.until(lambda: len(lake.read("rejects")) == 1)  # a trace without a model, when it is silent

    run(main)
    found = rows(lake)
    assert len({r["trajectory_id"] for r in found}) == 1
    assert [r["action"]["command"] for r in found if r["kind"] == "action"] == ["ls 0", "ls 1", "ls 2"]
    assert [r["observation"]["rendered"] for r in found if r["kind"] == "observation"] == ["out 0", "out 1", "out 2"]
    assert sum(r["kind"] == "end" for r in found) == 1
    (corpus,) = {r["corpus"] for r in found}
    assert corpus == "traces"


def test_spans_that_diverge_are_one_reject_when_they_are_silent(lake: Lake) -> None:
    traces = Traces(lake, "traces")
    for i in range(4):
        traces.add(str(i), spans(i), 1)
    traces.write("b")
    assert len(traces.silent(-1, "b")) == 4
    for i in range(3):
        traces.add(f"other-{i}", spans(0, say="Repair another."), 1)
        traces.write("b")
        assert not len(lake.read("rejects")), "they are read again"
    assert len(traces.silent(-1, "b")) == 3
    (row,) = lake.read("rejects").to_pylist()
    assert row["reason"] == "diverged"
    assert json.loads(row["raw"]) == [spans(0, say="Repair another.")] * 3


def traced(*ids: str) -> dict[str, Any]:
    """A request with a span of each of these traces, which call no model."""
    return {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": i, "spanId": i} for i in ids]}]}]}


def test_requests_that_share_a_trace_fall_silent_together(lake: Lake) -> None:
    traces = Traces(lake, "traces")
    for name, marks in {"a": "1", "b": "2", "alone": "3", "c": "4", "bare": ""}.items():
        traces.add(name, traced(*marks), 1)
    assert traces.silent(60, "b") == set()
    time.sleep(0.2)
    later = time.time()
    traces.add("joins", traced("1", "2"), 1)
    assert traces.silent(time.time() - later + 0.1, "b") == {"alone", "c", "bare"}
    assert traces.silent(-1, "b") == {"a", "b", "joins"}
    assert len(traces) == 0


def test_looking_for_silence_is_cheap_when_thousands_of_conversations_go_on(lake: Lake) -> None:
    traces = Traces(lake, "traces")
    traces.add("silent", traced("0"), 1)
    time.sleep(0.2)
    later = time.time()
    for i in range(1, 6000):
        traces.add(str(i), traced(str(i), "shared" if i % 2 else str(i)), 1)
    begun_at = time.process_time()
    assert traces.silent(time.time() - later + 0.1, "b") == {"silent"}
    assert time.process_time() - begun_at < 1.0


def test_the_description_covers_every_kind_and_column() -> None:
    told = openapi(token=True)
    schemas = told["components"]["schemas"]
    for name, kind in KINDS.items():
        shape = schemas[f"{name.capitalize()}Event"]
        assert shape["additionalProperties"] is False
        assert set(schemas[name.capitalize()]["properties"]) == {c.name for c in kind.columns}
    assert told["security"] == [{"token": []}]
    assert "security" not in openapi(token=False)


class Program:
    """`stepwell serve` as a program of its own; its address is known once it listens."""

    def __init__(self, lake: Lake, *options: str) -> None:
        command = [*SERVE, "--lake", lake.uri, "--every", "0.2", *options]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        told = ""
        while "listening on" not in told:
            told = self.process.stderr.readline().decode()
            assert told or self.process.poll() is None
        self.url = told.split()[-1]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode


def test_the_program_ends_cleanly_and_the_client_sends(lake: Lake) -> None:
    program = Program(lake)
    events = [e for i in range(3) for e in begun(f"t-{i}", 3)]
    told = list(Client(program.url).send([*events, {"kind": "x"}], size=10))
    assert [t["taken"] for t in told] == [10, 10, 1]
    assert [r["index"] for t in told for r in t["rejected"]] == [1]
    end = time.monotonic() + 30
    while len(lake.read("trajectories")) < 3:
        assert time.monotonic() < end, "folds are up to date while it runs"
        time.sleep(0.2)
    assert program.end(signal.SIGTERM) == 0
    assert len(rows(lake)) == 21
    assert not list((Path(lake.uri) / ".serve").glob("journal-*")), "nothing waits, so nothing is kept"


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_whenever_it_is_killed(lake: Lake) -> None:
    """Eight clients send without pause while the server is killed again and again; STEPWELL_KILLS sets how often."""
    pick, kills = random.Random(20261121), int(os.environ.get("STEPWELL_KILLS", "3"))
    acknowledged: set[str] = set()
    sent: Counter[str] = Counter()
    place = {"url": ""}
    stop = threading.Event()

    def client(number: int) -> None:
        n = 0
        while not stop.is_set():
            events = begun(f"c{number}-{n}", 5)
            while True:  # sent again until it is acknowledged
                try:
                    (told,) = Client(place["url"], tries=1).send(events)
                    acknowledged.update(told["event_ids"])
                    break
                except (OSError, ValueError):
                    if stop.wait(0.05):
                        return
            sent[f"c{number}-{n}"] += 1
            n += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for n in range(kills):
        program = Program(lake)
        place["url"] = program.url
        for thread in threads if n == 0 else ():
            thread.start()
        time.sleep(2 + pick.random())
        assert program.end(signal.SIGKILL) == -signal.SIGKILL
    stop.set()
    for thread in threads:
        thread.join()
    assert Program(lake).end(signal.SIGTERM) == 0
    there = Counter(EventLog(lake).read(columns=["event_id"]).column(0).to_pylist())
    assert len(acknowledged) > 100
    assert not acknowledged - there.keys(), "what was acknowledged is there"
    assert max(there.values()) == 1, "and once"
    whole = Counter(r["trajectory_id"] for r in rows(lake))
    assert set(whole.values()) == {11}, "every request whole or not at all"
    print(f"\n{kills} kills, {len(acknowledged)} events acknowledged, {len(there)} in the lake")


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "right"])
def test_schemathesis_finds_nothing(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    """Every check of schemathesis, with the seed it is given here."""
    monkeypatch.setenv("STEPWELL_TEST_TOKEN", token or "")
    program = Program(lake, *(["--token-env", "STEPWELL_TEST_TOKEN"] if token else []))
    given = ["--header", f"Authorization: Bearer {token}"] if token else []
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{program.url}/openapi.json", "--checks", "all",
        "--max-examples", "20", "--seed", "20261121", "--phases", "coverage,fuzzing", "--no-color", *given,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
    assert program.end(signal.SIGTERM) == 0
    assert done.returncode == 0, done.stdout[:2000] + done.stdout[-2000:]
