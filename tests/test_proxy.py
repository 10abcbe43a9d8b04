"""The recording proxy: what passes through is unchanged, what is recorded is exact, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from proxy_upstream import Upstream, call, text
from vllm_server import Server

from stepwell.chat import prompt_hash
from stepwell.conversation import conversations
from stepwell.errors import UsageError
from stepwell.event import to_table
from stepwell.fold import refresh
from stepwell.importers.run import import_paths
from stepwell.journal import Journal
from stepwell.lake import Lake
from stepwell.log import EventLog, in_order, live
from stepwell.proxy.address import Address
from stepwell.proxy.prompts import prompts
from stepwell.proxy.recorder import Recorder
from stepwell.proxy.replies import Assembly, Events
from stepwell.proxy.run import Settings, serve
from stepwell.proxy.server import Proxy
from stepwell.proxy.trajectory import Trajectory
from stepwell.redaction.run import redact
from stepwell.redaction.target import Target

ROOT = Path(__file__).parent.parent
PROXY = [sys.executable, "-c", "from stepwell.cli import main; main()", "proxy"]
SYSTEM = {"role": "system", "content": "You repair code."}
ASK = {"role": "user", "content": "Repair f."}
TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]


@asynccontextmanager
async def proxied(
    lake: Lake, upstream: Upstream, *, every: float = 60, idle: float = 60, **rest: Any
) -> AsyncIterator[str]:
    """A proxy before the upstream; yields its address, and at the end everything is in the lake."""
    recorder = Recorder(lake, Journal(Path(lake.uri) / ".proxy"), every=every, idle=idle)
    proxy = Proxy(upstream.url, recorder, **rest)
    try:
        await recorder.start()
        yield f"http://127.0.0.1:{await proxy.start('127.0.0.1', 0)}"
    finally:
        await proxy.close()
        await recorder.stop()


def client(base: str, where: str, key: str = "sk-secret-key") -> openai.AsyncOpenAI:
    http = openai.DefaultAioHttpClient()
    return openai.AsyncOpenAI(base_url=f"{base}/{where}/v1", api_key=key, max_retries=0, http_client=http)


ABOUT = {"task_id": None, "config": {}}


def finished() -> dict[str, Any]:
    """A call as the recorder is told of it."""
    return {
        "kind": "call", "known": 0, "sent": time.time(), "at": time.time(), "latency_s": 0.0, "api": "chat/completions",
        "model": "m", "tools": None, "sampling": {}, "prompt_hash": prompt_hash([ASK]), "messages": [ASK],
        "reply": {"choices": [{"message": text("x" * 500)}]},
    }  # fmt: skip


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def rows(lake: Lake, *kinds: str) -> list[dict[str, Any]]:
    return EventLog(lake).read(kinds=kinds or None).to_pylist()


def exact(lake: Lake) -> int:
    """Every prompt made from the log has the hash that was logged; returns how many there are."""
    hashes = {r["event_id"]: r["usage"]["prompt_hash"] for r in rows(lake, "action")}
    made = {event_id: prompt_hash(messages) for event_id, messages in prompts(EventLog(lake).read())}
    assert made == hashes
    return len(made)


def extra(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row["extra"] or "{}")
    return found


def test_a_conversation_becomes_a_trajectory(lake: Lake) -> None:
    async def main() -> None:
        replies = iter([call("ls", "cat f.py", number=1), text("Done.")])
        async with Upstream(lambda body: [next(replies)]) as upstream, proxied(lake, upstream) as base:
            async with client(base, "runs%2Fone/task-7/2") as api:
                messages: list[Any] = [SYSTEM, ASK]
                for _ in range(2):
                    told = await api.chat.completions.create(
                        model="m", messages=messages, temperature=0.5, tools=TOOLS, extra_headers={"X-Stepwell-Agent": "toy@1"}
                    )  # fmt: skip
                    said = told.choices[0].message.model_dump(exclude_none=True)
                    messages.append({"content": None, **said})
                    for made in told.choices[0].message.tool_calls or ():
                        messages.append({"role": "tool", "tool_call_id": made.id, "content": f"out of {made.id}"})
            async with aiohttp.ClientSession() as session:
                end = {
                    "exit_status": "Submitted",
                    "submission": "diff",
                    "outcome": {"resolved": True, "score": 1},
                    "note": 3,
                }
                async with session.post(f"{base}/runs%2Fone/task-7/2/end", json=end) as reply:
                    ended = (await reply.json())["trajectories"]
        found = rows(lake)
        assert [r["kind"] for r in found] == [
            "task", "start", "instruction", "instruction", "action", "observation", "observation", "action", "end", "outcome",
        ]  # fmt: skip
        assert {r["trajectory_id"] for r in found} == set(ended)
        assert {r["corpus"] for r in found} == {"runs/one"}
        task, start, *_ = found
        assert (task["task"]["task_id"], start["start"]["attempt"], start["start"]["agent"]) == ("task-7", 2, "toy@1")
        given = sorted((r["instruction"] for r in found if r["kind"] == "instruction"), key=lambda i: i["position"])
        assert [(i["role"], i["content"]) for i in given] == [(m["role"], m["content"]) for m in (SYSTEM, ASK)]
        assert json.loads(given[0]["tools"]) == TOOLS
        first, second = (r for r in found if r["kind"] == "action")
        assert first["action"]["command"] == "ls\ncat f.py"
        assert [c["id"] for c in json.loads(first["action"]["tool_calls"])] == ["call-1-0", "call-1-1"]
        assert first["usage"]["tokens_in"] == len(json.dumps([SYSTEM, ASK]))
        assert (first["usage"]["cache_read"], first["usage"]["finish"]) == (3, "stop")
        assert json.loads(first["usage"]["sampling"]) == {"temperature": 0.5}
        assert 0 < first["usage"]["latency_s"] < 5
        assert first["policy"] == "double-1"
        assert second["action"]["text"] == "Done."
        seen = sorted((r["observation"] for r in found if r["kind"] == "observation"), key=lambda o: o["position"])
        assert [(o["tool_call_id"], o["rendered"]) for o in seen] == [
            ("call-1-0", "out of call-1-0"), ("call-1-1", "out of call-1-1"),
        ]  # fmt: skip
        assert {r["caused_by"] for r in found if r["kind"] == "observation"} == {first["event_id"]}
        assert (found[-2]["end"]["exit_status"], found[-2]["end"]["n_calls"]) == ("Submitted", 2)
        assert extra(found[-2]) == {"note": 3}
        assert found[-1]["outcome"]["resolved"] is True
        assert exact(lake) == 2
        refresh(lake)
        (row,) = lake.read("trajectories").to_pylist()
        assert (row["task_id"], row["n_steps"], row["resolved"], row["submitted"]) == ("task-7", 2, True, True)

    run(main)


def test_a_stream_passes_piece_by_piece_and_is_put_together(lake: Lake) -> None:
    async def main() -> None:
        said = [call("ls", "pwd") | {"content": "I look around, häh.", "reasoning_content": "Hm."}]
        async with Upstream(lambda body: said, pause=0.03) as upstream, proxied(lake, upstream) as base:
            body = {"model": "m", "messages": [ASK], "stream": True}
            async with aiohttp.ClientSession() as session:
                direct, times = b"", []
                async with session.post(f"{upstream.url}/chat/completions", json=body) as reply:
                    direct = await reply.read()
                async with session.post(f"{base}/c/t/v1/chat/completions", json=body) as reply:
                    through = b""
                    async for piece in reply.content.iter_any():
                        through += piece
                        times.append(time.monotonic())
                assert upstream.bodies[1]["stream_options"] == {"include_usage": True}
                assert through == direct.replace(b"cmpl-1", b"cmpl-2")  # the usage chunk stays hidden
                assert times[-1] - times[0] > 0.2  # it came as it was made
                asked = {**body, "stream_options": {"include_usage": True}}
                async with session.post(f"{base}/c/t/v1/chat/completions", json=asked) as reply:
                    assert b'"usage"' in await reply.read()
        for action in rows(lake, "action"):
            assert action["action"]["text"] == "I look around, häh."
            assert action["action"]["reasoning"] == "Hm."
            assert action["action"]["command"] == "ls\npwd"
            assert json.loads(action["action"]["tool_calls"]) == said[0]["tool_calls"]
            assert action["usage"]["tokens_out"] == 7
            assert 0 < extra(action)["first_token_s"] < action["usage"]["latency_s"]
        assert exact(lake) == 2

    run(main)


def test_an_upstream_that_knows_no_usage_option_is_asked_without(lake: Lake) -> None:
    async def main() -> None:
        async with Upstream(knows_usage=False) as upstream, proxied(lake, upstream) as base, client(base, "c/t") as api:
            for n in range(2):
                stream = await api.chat.completions.create(model="m", messages=[ASK], stream=True)  # type: ignore[list-item]
                assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "reply 0 to 1"
                assert len(upstream.bodies) == n + 2
        assert [r["usage"]["tokens_in"] for r in rows(lake, "action")] == [None, None]

    run(main)


@given(st.binary(max_size=400), st.lists(st.integers(1, 9), max_size=30))
def test_events_are_the_same_however_a_stream_is_cut(noise: bytes, cuts: list[int]) -> None:
    stream = b"data: {}\n\n: a comment\n\nevent: x\ndata: 1\ndata: 2\n\n" + noise.replace(b"\r", b"") + b"\n\n"
    whole = list(Events().feed(stream))
    events, found, at = Events(), [], 0
    for cut in [*cuts, len(stream)]:
        found += list(events.feed(stream[at : at + cut]))
        at += cut
    assert found == whole
    assert b"".join(e for e, _ in found) + events.rest == stream
    assert [d for _, d in found[:3]] == [b"{}", b"", b"1\n2"]


def test_chunks_nobody_promised_do_not_break_the_record() -> None:
    assembly = Assembly()
    for chunk in (None, 3, [], {"choices": 1}, {"choices": [None, {"index": "x", "delta": {"content": "a"}}]},
                  {"choices": [{"index": 0, "delta": {"content": None, "tool_calls": [3, {"index": 0}]}}]}):  # fmt: skip
        assembly.add(chunk)
    assert assembly.completion()["choices"][0]["message"]["content"] == "a"


def test_errors_pass_unchanged_and_are_no_actions(lake: Lake) -> None:
    async def main() -> None:
        async with Upstream() as upstream, proxied(lake, upstream) as base, client(base, "c/t") as api:
            upstream.faults += [("status", 429), ("status", 500), ("drop", 0)]
            with pytest.raises(openai.RateLimitError, match="no, Bearer sk-secret-key"):
                await api.chat.completions.create(model="m", messages=[ASK])  # type: ignore[list-item]
            with pytest.raises(openai.InternalServerError):
                await api.chat.completions.create(model="m", messages=[ASK])  # type: ignore[list-item]
            with pytest.raises(openai.InternalServerError, match="cannot be reached or broke off"):
                await api.chat.completions.create(model="m", messages=[ASK])  # type: ignore[list-item]
            await api.chat.completions.create(model="m", messages=[ASK])  # type: ignore[list-item]
            upstream.faults += [("cut", 2)]
            stream = await api.chat.completions.create(model="m", messages=[ASK], stream=True)  # type: ignore[list-item]
            with pytest.raises(Exception, match=r"(?i)payload|closed|connection"):
                async for _ in stream:
                    pass
            assert upstream.headers[0]["Authorization"] == "Bearer sk-secret-key"
        (action,) = rows(lake, "action")
        assert [f["status"] for f in extra(action)["before"]] == [429, 500, 502]
        assert "[key]" in extra(action)["before"][0]["error"]
        assert extra(action)["before"][0]["prompt_hash"] == action["usage"]["prompt_hash"]
        (end,) = rows(lake, "end")
        (cut,) = extra(end)["before"]
        assert cut["status"] == 502
        assert cut["reply"]["choices"][0]["message"]["content"] == "rep"
        assert b"sk-secret-key" not in b"".join(p.read_bytes() for p in Path(lake.uri).rglob("*") if p.is_file())

    run(main)


def test_what_is_not_understood_passes_and_is_kept(lake: Lake) -> None:
    async def main() -> None:
        async with Upstream() as upstream, proxied(lake, upstream) as base, client(base, "c/t") as api:
            assert [m.id async for m in await api.models.list()] == ["double"]
            async with aiohttp.ClientSession() as session:
                async with session.post(f"{base}/c/t/v1/responses?x=1", json={"input": "hi"}) as reply:
                    assert (await reply.json())["echo"] == {"input": "hi"}
                async with session.post(f"{base}/c/t/v1/chat/completions", data=b"\xff{") as reply:
                    assert reply.status == 500  # the double's own word
                    await reply.read()
            told = await api.completions.create(model="m", prompt="once upon")
            assert told.choices[0].text == "reply 0 to 0"
        (action,) = rows(lake, "action")
        other, failed = extra(action)["before"]
        assert (other["api"], json.loads(other["request"])) == ("responses", {"input": "hi"})
        assert json.loads(other["response"])["echo"] == {"input": "hi"}
        assert (failed["status"], failed["request"]) == (500, "base64:/3s=")
        assert (action["action"]["text"], extra(action)["api"]) == ("reply 0 to 0", "completions")
        assert exact(lake) == 1

    run(main)


def test_text_that_is_no_unicode_is_kept_and_never_stops_a_batch(lake: Lake) -> None:
    async def main() -> None:
        async with Upstream() as upstream, proxied(lake, upstream) as base, aiohttp.ClientSession() as session:
            for content in ('"\\ud83d half"', '"zero \\u0000"', "123456789012345678901234567890"):
                body = f'{{"model": "m", "messages": [{{"role": "user", "content": {content}}}]}}'
                async with session.post(f"{base}/c/t/v1/chat/completions", data=body) as reply:
                    assert reply.status == 200
            assert upstream.bodies[0]["messages"][0]["content"] == "\ud83d half"
        assert exact(lake) == 3
        assert rows(lake, "instruction")[0]["instruction"]["content"] == "\\ud83d half"

    run(main)


def test_retries_edits_samples_and_sub_agents_keep_exact_prompts(lake: Lake) -> None:
    async def main() -> None:
        async with Upstream() as upstream, proxied(lake, upstream) as base, client(base, "c/t") as api:

            async def ask(messages: list[Any], **rest: Any) -> list[Any]:
                told = await api.chat.completions.create(model="m", messages=messages, **rest)
                return [c.message.model_dump() for c in told.choices]  # with the nulls some harnesses send back

            start: list[Any] = [SYSTEM, ASK]
            await ask(start)
            (again,) = await ask(start)  # the first reply is dropped
            line = [*start, again, {"role": "user", "content": "seen 1"}]
            two = await ask(line, n=3)
            line += [
                two[2],
                {"role": "user", "content": [{"type": "text", "text": "seen "}, {"type": "text", "text": "2"}]},
            ]
            await ask(line)
            error = {"role": "user", "content": "Format error."}
            (four,) = await ask([*line, error])  # the reply before it is never shown again
            line += [error, four, {"role": "user", "content": "seen 4", "name": "x"}]
            (five,) = await ask(line)
            line[3] = {"role": "user", "content": "(old output)"}  # an output is elided
            line += [five, {"role": "user", "content": "seen 5"}]
            (six,) = await ask(line)
            await ask([SYSTEM, {"role": "user", "content": "Find g."}])  # a sub-agent
            short: list[Any] = [*start, {"role": "user", "content": "Summary."}]  # what came before is summed up
            await ask([*line, six, {"role": "user", "content": "seen 6"}])
            (eight,) = await ask(short)
            await ask(
                [*short, {**eight, "content": eight["content"] + " (edited)"}, {"role": "user", "content": "seen 8"}]
            )
            await asyncio.gather(*(ask([*short, {"role": "user", "content": f"at once {i}"}]) for i in range(8)))
        assert exact(lake) == 19
        (chat,) = conversations(EventLog(lake).read())
        said = [m["content"] for m in chat.messages if m["role"] == "assistant"]
        assert said[:4] == [again["content"], two[2]["content"], four["content"], five["content"]]
        actions = rows(lake, "action")
        assert [r["step"] for r in actions if extra(r).get("not_in_prompt")][:2] == [0, 3]
        assert [c["message"]["content"] for c in extra(actions[2])["choices"]] == [two[0]["content"], two[1]["content"]]
        seen = {(r["step"], r["observation"]["rendered"]) for r in rows(lake, "observation")}
        assert seen >= {(1, "seen 1"), (2, "seen 2"), (3, "Format error."), (4, "seen 4"), (5, "seen 5"), (6, "seen 6")}
        most = max(len(json.dumps(extra(r).get("prompt", {}))) for r in actions)
        assert most < 400  # what is the same is not written again

    run(main)


class Harness:
    """A harness that does to its history whatever it is told, and the records a proxy makes of it."""

    def __init__(self) -> None:
        self.trajectory = Trajectory("t", {"corpus": "c", "attempt": 0, "task_id": "x", "config": {}})
        self.records: list[dict[str, Any]] = []
        self.events: list[Any] = []
        self.clock = 0.0
        self.lines: list[list[Any]] = [[SYSTEM, ASK]]

    def ask(self, messages: list[Any], choices: int, overlap: bool) -> list[Any]:
        sent, self.clock = self.clock - (1.5 if overlap else 0), self.clock + 1
        known = max(len(self.records) - (2 if overlap else 0), 0)
        said = [text(f"say {len(self.records) % 5} {i}", refusal=None) for i in range(choices)]
        record = {
            "kind": "call", "sent": sent, "at": self.clock, "latency_s": 1.0, "api": "chat/completions", "model": "m",
            "tools": None, "sampling": {}, "prompt_hash": prompt_hash(messages), "n": len(self.records), "t": "t",
            "reply": {"choices": [{"index": i, "message": m} for i, m in enumerate(said)]},
            "place": self.trajectory.place(json.loads(json.dumps(messages)), known), "known": known,
        }  # fmt: skip
        self.records.append(json.loads(json.dumps(record)))
        self.events += self.trajectory.absorb(record)
        return said


MOVES = ("on", "retry", "drop", "edit reply", "elide", "window", "fork", "agent", "prefill", "insert", "branch")


@examples(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 9), st.integers(1, 3), st.booleans()), max_size=25))
def test_whatever_a_harness_does_to_its_history_its_prompts_are_exact(moves: list[tuple[str, int, int, bool]]) -> None:
    harness = Harness()
    said = harness.ask(harness.lines[0], 1, False)
    for move, number, choices, overlap in moves:
        lines = harness.lines
        line = lines[number % len(lines)]
        reply, seen = said[number % len(said)], {"role": "user", "content": f"seen {number}"}
        if move == "on":
            line += [reply, seen]
        elif move == "drop":
            line += [seen]
        elif move == "edit reply":
            line += [
                {**reply, "content": "  " + reply["content"] + "!", "extra": None},
                seen,
                {"role": "tool", "content": None},
            ]
        elif move == "elide":
            line[number % len(line)] = {"role": "user", "content": "..."}
        elif move == "window":
            del line[2 : 2 + number]
        elif move == "fork":
            lines.append([*line[: number + 1], seen])
        elif move == "agent":
            lines.append([{"role": "user", "content": f"agent {number}"}])
        elif move == "prefill":
            line += [{"role": "assistant", "content": "I"}]
        elif move == "insert":
            line.insert(number % len(line), {"role": "developer"})
        elif move == "branch":
            line += [reply, seen] if number % 2 else [reply]
        said = harness.ask(line, choices, overlap)
    end = {"kind": "end", "at": harness.clock + 1, "exit_status": "ended", "n": len(harness.records), "t": "t"}
    events = harness.events + harness.trajectory.absorb(end)
    table = in_order(to_table(events, "b", datetime.now(UTC)))
    assert [prompt_hash(m) for _, m in prompts(table)] == [r["prompt_hash"] for r in harness.records]
    timed = [{k: v for k, v in r.items() if k != "known"} for r in harness.records]  # as earlier versions wrote them
    for records in (harness.records, timed):
        replayed = Trajectory("t", harness.trajectory.opened)
        again = [e for r in [*records, end] for e in replayed.absorb(r)]
        assert [(e.event_id, e.extra) for e in again] == [(e.event_id, e.extra) for e in events]


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    harness = Harness()
    harness.clock = 1000.0
    (line,) = harness.lines
    (said,) = harness.ask(line, 1, False)
    for i in range(3):
        harness.clock -= 60
        line += [said, {"role": "user", "content": f"seen {i}"}]
        (said,) = harness.ask(line, 1, False)
    assert [e.payload["rendered"] for e in harness.events if e.kind == "observation"] == ["seen 0", "seen 1", "seen 2"]


def test_calls_of_many_trajectories_over_one_address_are_told_apart(lake: Lake) -> None:
    async def main() -> None:
        async with Upstream(pause=0.002) as upstream, proxied(lake, upstream) as base, client(base, "c") as api:

            async def agent(i: int) -> None:
                messages: list[Any] = [SYSTEM, {"role": "user", "content": f"Task {i}."}]
                for step in range(5):
                    told = await api.chat.completions.create(
                        model="m", messages=messages, metadata={"task_id": f"task-{i}"}
                    )
                    messages += [
                        told.choices[0].message.model_dump(exclude_none=True),
                        {"role": "user", "content": f"{step}"},
                    ]

            await asyncio.gather(*(agent(i) for i in range(20)))
        assert exact(lake) == 100
        assert Counter(Counter(r["trajectory_id"] for r in rows(lake, "action")).values()) == {5: 20}
        assert not [r for r in rows(lake, "action") if "prompt" in extra(r)]
        assert {r["task"]["task_id"] for r in rows(lake, "task")} == {f"task-{i}" for i in range(20)}

    run(main)


def test_a_client_that_goes_away_leaves_what_it_received(lake: Lake) -> None:
    async def main() -> None:
        slow = Upstream(lambda body: [text("a long reply " * 20)], pause=0.02)
        async with slow as upstream, proxied(lake, upstream) as base, aiohttp.ClientSession() as session:
            body = {"model": "m", "messages": [ASK], "stream": True}
            url = f"{base}/c/t/v1/chat/completions"
            async with session.post(url, json=body) as reply:
                await reply.content.readany()
                await asyncio.sleep(0.1)
                reply.close()
            upstream.pause = 5
            with pytest.raises(TimeoutError):
                await session.post(url, json={**body, "stream": False}, timeout=aiohttp.ClientTimeout(0.2))
            await asyncio.sleep(0.1)
        (action,) = rows(lake, "action")
        assert action["usage"]["finish"] == "aborted"
        assert "a long reply".startswith(action["action"]["text"][:12])
        assert 0 < len(action["action"]["text"]) < 240
        (end,) = rows(lake, "end")
        assert [f["error"] for f in extra(end)["before"]] == ["the client went away"]

    run(main)


def test_limits_are_said_and_a_silent_upstream_is_given_up(lake: Lake) -> None:
    async def main() -> None:
        upstream = Upstream(lambda body: [text("x" * body["max_tokens"])])
        async with (
            upstream,
            proxied(lake, upstream, most=20_000, timeout=0.3) as base,
            aiohttp.ClientSession() as session,
        ):

            async def status(size: int, **rest: Any) -> int:
                body = {"model": "m", "messages": [{"role": "user", "content": "y" * size}], "max_tokens": 1} | rest
                async with session.post(f"{base}/c/t/v1/chat/completions", json=body) as reply:
                    try:
                        return reply.status if await reply.read() else 0
                    except aiohttp.ClientPayloadError:
                        return -1

            assert await status(5) == 200
            assert await status(30_000) == 413
            async with session.post(f"{base}/c/t/v1/chat/completions", data=b"y" * 30_000) as reply:
                assert (await reply.json())["error"]["code"] == 413
            assert await status(5, max_tokens=30_000) == 502
            assert await status(5, max_tokens=30_000, stream=True) == -1
            upstream.pause = 9
            assert await status(5) == 504
        assert len(rows(lake, "action")) == 1
        assert [f["status"] for f in extra(rows(lake, "end")[0])["before"]] == [502, 502, 504]

    run(main)


def test_who_may_call_and_whose_key_is_sent(lake: Lake) -> None:
    async def main() -> None:
        async with Upstream() as upstream:
            async with proxied(lake, upstream, token="sesame", key="sk-upstream") as base:
                async with client(base, "c/t", "wrong") as api:
                    with pytest.raises(openai.AuthenticationError):
                        await api.models.list()
                async with client(base, "c/t", "sesame") as api:
                    await api.models.list()
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(
                        f"{base}/c/v1/models", headers={"Origin": "http://evil", "X-Stepwell-Token": "sesame"}
                    ) as reply,
                ):
                    assert reply.status == 403
            assert [h["Authorization"] for h in upstream.headers] == ["Bearer sk-upstream"]
            async with proxied(lake, upstream, token="sesame") as base, client(base, "c/t", "sesame") as api:
                await api.models.list()
            assert "Authorization" not in upstream.headers[-1]

    run(main)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings = Settings("http://127.0.0.1/v1", port=taken.getsockname()[1])
        with pytest.raises(UsageError, match="name another --port"):
            asyncio.run(serve(lake, settings))
    with pytest.raises(UsageError, match="--token"):
        Settings("http://127.0.0.1/v1", host="0.0.0.0")
    with pytest.raises(UsageError, match="base URL"):
        Settings("127.0.0.1:8000/v1")
    with pytest.raises(UsageError, match="KEY_THAT_IS_NOT_SET"):
        Settings("http://127.0.0.1/v1", key_env="KEY_THAT_IS_NOT_SET")
    with pytest.raises(UsageError, match="--journal"):
        Settings("http://127.0.0.1/v1").folder(Lake("s3://bucket/lake"))


@pytest.mark.parametrize(
    "path", ["/", "/v1/models", "/c", "/c/t/x/v1/models", "/c/t/1/y/v1/m", "/c/%2e%2e/v1/m", "/c/v1/../m"]
)
def test_a_path_that_names_nobody_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="allowed"):
        Address.of(path)


def test_ends_are_checked_and_a_name_can_be_used_again(lake: Lake) -> None:
    async def main() -> None:
        async with Upstream() as upstream, proxied(lake, upstream) as base, aiohttp.ClientSession() as session:

            async def end(where: str, body: Any) -> int:
                async with session.post(f"{base}/{where}/end", json=body) as reply:
                    return reply.status

            async def ask(where: str) -> str:
                body = {"model": "m", "messages": [ASK]}
                async with session.post(f"{base}/{where}/v1/chat/completions", json=body) as reply:
                    return str(reply.headers["X-Stepwell-Trajectory"])

            assert await end("c/t", {}) == 404
            first = await ask("c/t/0")
            assert await end("c/t/0", {"outcome": {"resolved": "yes"}}) == 400
            assert await end("c/t/0", {"outcome": {"won": True}}) == 400
            assert await end("c/t/0", [1]) == 400
            assert await end("c/t/0", {"exit_status": "done"}) == 200
            assert len({first, await ask("c/t/0"), await ask("c/t/1"), await ask("c/u/0")}) == 4
            assert await end("c", {"outcome": {"resolved": True}}) == 409
            assert await end("c", {"exit_status": "all done"}) == 200
        assert Counter(r["end"]["exit_status"] for r in rows(lake, "end")) == {"done": 1, "all done": 3}

    run(main)


def test_a_call_under_way_at_the_end_belongs_to_what_ended(lake: Lake) -> None:
    async def main() -> None:
        async with (
            Upstream() as upstream,
            proxied(lake, upstream, every=0.05) as base,
            aiohttp.ClientSession() as session,
        ):

            async def ask(where: str, *messages: Any) -> str:
                body = {"model": "m", "messages": [ASK, *messages]}
                async with session.post(f"{base}/{where}/v1/chat/completions", json=body) as reply:
                    return str(reply.headers["X-Stepwell-Trajectory"])

            first = await ask("c/t/0")
            upstream.pause = 0.5
            late = [asyncio.create_task(ask("c/t/0", text("reply 0 to 1"), {"role": "user", "content": "on"}))]
            late.append(asyncio.create_task(ask("c/new/0")))
            await asyncio.sleep(0.2)
            done = {"exit_status": "done", "outcome": {"resolved": True}}
            for name in ("t", "new"):
                async with session.post(f"{base}/c/{name}/0/end", json=done) as reply:
                    assert reply.status == 200
            upstream.pause = 0
            third = await ask("c/t/0")
            second, new = await asyncio.gather(*late)
            assert second == first != third
        refresh(lake)
        ends = {t["trajectory_id"]: (t["exit_status"], t["n_steps"]) for t in lake.read("trajectories").to_pylist()}
        assert ends == {first: ("done", 2), new: ("done", 1), third: ("proxy stopped", 1)}
        assert Counter(r["trajectory_id"] for r in rows(lake, "outcome")) == {first: 1, new: 1}
        assert [(r["trajectory_id"], r["end"]["n_calls"]) for r in live(EventLog(lake).read(kinds=["end", "retraction"]))
                .to_pylist() if r["kind"] == "end" and r["trajectory_id"] == first] == [(first, 2)]  # fmt: skip
        before = EventLog(lake).version
        async with Upstream() as upstream, proxied(lake, upstream, idle=0.01):
            await asyncio.sleep(0.1)
        assert EventLog(lake).version == before, "the journal says the same again"
        assert not list(Path(lake.uri, ".proxy").glob("*.jsonl"))

    run(main)


def test_a_corpus_too_long_for_a_folder_is_refused_and_stops_nothing(lake: Lake) -> None:
    long = "\u6587" * 27
    body = {"model": "m", "messages": [ASK]}

    async def main() -> None:
        async with Upstream() as upstream:
            async with proxied(lake, upstream) as base, aiohttp.ClientSession() as session:
                async with session.post(f"{base}/{long}/t/0/v1/chat/completions", json=body) as reply:
                    assert reply.status == 400
                    assert "at most 240" in (await reply.json())["error"]["message"]
                async with session.post(f"{base}/{long[:26]}/t/0/v1/chat/completions", json=body) as reply:
                    assert reply.status == 200
            journal = Journal(Path(lake.uri) / ".proxy")
            recorder = Recorder(lake, journal)
            for name in (long, "good"):  # as a version that took such names left it
                await recorder.record(recorder.trajectory(Address(name, "t", 0), ABOUT), finished())
            await journal.close()
            async with proxied(lake, upstream) as base, client(base, "c/t") as api:
                await api.chat.completions.create(model="m", messages=[ASK])  # type: ignore[list-item]
        assert {r["corpus"] for r in rows(lake)} == {long[:26], "good", "c"}
        (refused,) = lake.read("rejects").to_pylist()
        assert "at most 240" in refused["detail"]
        assert json.loads(refused["raw"])["kind"] == "call", "what was said is kept"

    run(main)


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_taken_out_does_not_return_with_a_journal_kept_elsewhere(
    lake: Lake, tmp_path: Path, whole: bool
) -> None:
    secret = "Plain-Dead-Beef-77"
    call = finished() | {"reply": {"choices": [{"message": text(f"it is {secret}")}]}}

    async def recorded(call: dict[str, Any] | None) -> None:
        recorder = Recorder(lake, Journal(tmp_path / "elsewhere"))
        await recorder.start()
        if call is not None:
            await recorder.record(recorder.trajectory(Address("c", "t", 0), ABOUT), call)
        await recorder.stop()

    run(lambda: recorded(call))
    (action,) = rows(lake, "action")
    target = Target(down=frozenset({action["trajectory_id"]})) if whole else Target((secret,))
    assert redact(lake, target, "asked for").done
    run(lambda: recorded(None))
    assert not [r for r in rows(lake) if secret in str(r)]
    assert len([r for r in live(EventLog(lake).read()).to_pylist() if r["kind"] == "action"]) == (0 if whole else 1)


def test_a_silent_trajectory_ends_and_a_stopped_one_goes_on(lake: Lake) -> None:
    async def main() -> None:
        async with Upstream() as upstream:
            async with proxied(lake, upstream, idle=0.3, every=0.1) as base, client(base, "c/idle") as api:
                await api.chat.completions.create(model="m", messages=[ASK])  # type: ignore[list-item]
                await asyncio.sleep(0.8)
                assert [r["end"]["exit_status"] for r in rows(lake, "end")] == ["idle"]
            messages: list[Any] = [ASK]
            for _ in range(2):
                async with proxied(lake, upstream) as base, client(base, "c/stopped") as api:
                    told = await api.chat.completions.create(model="m", messages=messages)
                    messages += [told.choices[0].message.model_dump(exclude_none=True), ASK]
        log = EventLog(lake).read().to_pylist()
        (stopped,) = {r["trajectory_id"] for r in log if r["kind"] == "retraction"}
        mine = [r for r in log if r["trajectory_id"] == stopped]
        assert Counter(r["kind"] for r in mine) == {
            "task": 1, "start": 1, "instruction": 1, "action": 2, "observation": 1, "end": 2, "retraction": 1,
        }  # fmt: skip
        gone = next(r["retraction"]["target_event"] for r in mine if r["kind"] == "retraction")
        assert next(r["end"]["n_calls"] for r in mine if r["event_id"] == gone) == 1
        assert exact(lake) == 3
        async with Upstream() as upstream, proxied(lake, upstream, idle=0.01):
            await asyncio.sleep(0.1)
        assert not list(Path(lake.uri, ".proxy").glob("*.jsonl"))

    run(main)


def test_segments_go_when_all_in_them_is_in_the_lake(lake: Lake, tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal(tmp_path / "j", segment_bytes=2000)
        recorder = Recorder(lake, journal, every=0.05)
        await recorder.start()

        async def ask(name: str) -> None:
            await recorder.record(recorder.trajectory(Address("c", name), ABOUT), finished())

        await ask("long")
        for i in range(20):
            await ask(f"short-{i}")
            await recorder.end(Address("c", f"short-{i}"), {"exit_status": "done"})
        await asyncio.sleep(0.3)
        left = sorted((tmp_path / "j").glob("*.jsonl"))
        assert 1 <= len(left) <= 2  # the first, in which `long` still is, and the one that is written to
        with pytest.raises(UsageError, match="another process"):
            Journal(tmp_path / "j")
        await recorder.stop()
        damaged = left[0].read_bytes()
        left[0].write_bytes(damaged.replace(b'"t"', b"garbage", 1) + b'{"cut": ')
        again = Recorder(lake, Journal(tmp_path / "j"))
        await again.start()
        await again.stop()
        assert len(lake.read("rejects")) >= 2
        assert len(rows(lake, "action")) == 21

    run(main)


BARE = """
import asyncio, resource, sys
from stepwell.lake import Lake
from stepwell.proxy.run import Settings, serve
lake, upstream, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
settings = Settings(upstream, port=0, every=0.2, batch=20)
asyncio.run(serve(Lake(lake), settings, lambda url, _: print("listening on", url, file=sys.stderr, flush=True)))
"""


def serving_process(
    lake: Lake, upstream: str, command: bool = False, most: int = -1
) -> tuple[subprocess.Popen[str], str]:
    """A proxy in a process of its own, by the command or (sooner there) without it, and its address.

    `most` is the size in bytes that no file it writes can exceed.
    """
    by_command = [*PROXY, "--upstream", upstream, "--port", "0", "--lake", lake.uri, "--json"]
    command_line = by_command if command else [sys.executable, "-c", BARE, lake.uri, upstream, str(most)]
    process = subprocess.Popen(command_line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if line.startswith("listening on "):
            return process, line.split()[2].rstrip(",")
    raise AssertionError("".join(told))


def test_what_was_acknowledged_survives_a_kill_at_any_moment(lake: Lake) -> None:
    acknowledged: list[str] = []

    async def agent(base: str, number: int, draw: random.Random) -> None:
        """Calls until the proxy is gone; a reply is acknowledged when all of it was read."""
        messages: list[Any] = [{"role": "user", "content": f"{number} {draw.random()}"}]
        async with client(base, f"c/t{number}/0") as api:
            while True:
                try:
                    if draw.random() < 0.5:
                        told = await api.chat.completions.create(model="m", messages=messages)
                        acknowledged.append(told.id)
                        said = told.choices[0].message.content
                    else:
                        said, ids = "", set()
                        async for chunk in await api.chat.completions.create(model="m", messages=messages, stream=True):
                            ids.add(chunk.id)
                            said += chunk.choices[0].delta.content or ""
                        acknowledged.extend(ids)
                except (openai.APIError, aiohttp.ClientError, OSError):
                    return
                messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "go on"}]

    async def main() -> None:
        draw = random.Random(7)
        async with Upstream() as upstream:
            for goal in (25, 60, 90):
                process, base = await asyncio.to_thread(serving_process, lake, upstream.url)
                agents = [asyncio.create_task(agent(base, i, draw)) for i in range(4)]
                while len(acknowledged) < goal:
                    await asyncio.sleep(draw.uniform(0.001, 0.03))
                process.send_signal(signal.SIGKILL)
                await asyncio.gather(*agents)
                process.communicate()
            process, _ = await asyncio.to_thread(serving_process, lake, upstream.url, True)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
            assert json.loads(out)["trajectories"] > 0

    run(main)
    kept = Counter(r["usage"]["call_id"] for r in rows(lake, "action"))
    assert not set(acknowledged) - set(kept)
    assert set(kept.values()) == {1}
    assert exact(lake) == len(kept)


def test_a_full_disk_acknowledges_nothing_and_loses_nothing(lake: Lake) -> None:
    async def main() -> None:
        async with Upstream() as upstream:
            process, base = await asyncio.to_thread(serving_process, lake, upstream.url, most=20_000)
            done: list[str] = []
            async with client(base, "c/t") as api:

                async def ask_on() -> None:
                    while True:
                        told = await api.chat.completions.create(model="m", messages=[ASK] * 9)  # type: ignore[list-item]
                        done.append(told.id)

                with pytest.raises((openai.InternalServerError, openai.APIConnectionError)):
                    await ask_on()
            _, err = await asyncio.to_thread(process.communicate, timeout=30)
            assert process.returncode == 1
            assert "LakeError" in err
            async with proxied(lake, upstream) as base, client(base, "c/t") as api:
                done.append((await api.chat.completions.create(model="m", messages=[ASK])).id)  # type: ignore[list-item]
        assert sorted(r["usage"]["call_id"] for r in rows(lake, "action")) == sorted(done)
        assert len(done) > 5
        assert exact(lake) == len(done)

    run(main)


@pytest.mark.vllm
@pytest.mark.slow
def test_calls_of_a_real_server_are_recorded_with_its_counts(lake: Lake, vllm_server: Server) -> None:
    async def main() -> None:
        upstream = Upstream()
        upstream.url = vllm_server.url + "/v1"
        async with proxied(lake, upstream) as base, client(base, "c/t") as api:
            assert [m.id async for m in await api.models.list()] == ["base"]
            messages: list[Any] = [SYSTEM, ASK]
            counts = []
            for n in range(3):
                told: Any = await api.chat.completions.create(
                    model="base", messages=messages, max_tokens=8, temperature=0, stream=n == 1
                )
                if n == 1:
                    said = "".join([c.choices[0].delta.content or "" async for c in told])
                else:
                    said = told.choices[0].message.content
                    counts.append((told.usage.prompt_tokens, told.usage.completion_tokens))
                messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "Go on."}]
            with pytest.raises(openai.BadRequestError):
                await api.chat.completions.create(model="base", messages=messages, max_tokens=10**6)
        first, streamed, last = rows(lake, "action")
        assert [(r["usage"]["tokens_in"], r["usage"]["tokens_out"]) for r in (first, last)] == counts
        assert streamed["usage"]["tokens_in"] > first["usage"]["tokens_in"]
        assert streamed["usage"]["tokens_out"] > 0
        assert [r["action"]["text"] for r in (first, streamed, last)] == [
            m["content"] for m in messages if m["role"] == "assistant"
        ]
        assert extra(rows(lake, "end")[0])["before"][0]["status"] == 400
        assert exact(lake) == 3

    run(main)


MINI = os.environ.get("STEPWELL_MINI_PYTHON")
COMMANDS = ["echo one > a.txt; ls", "cat a.txt missing.txt", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; cat a.txt"]


@pytest.mark.skipif(not MINI, reason="STEPWELL_MINI_PYTHON names no interpreter with mini-swe-agent")
@pytest.mark.parametrize("config", ["mini.yaml", "mini_textbased.yaml"])
def test_mini_swe_agent_unchanged_leaves_the_same_trajectory(lake: Lake, tmp_path: Path, config: str) -> None:
    scratch, saved = tmp_path / "scratch", tmp_path / "run.traj.json"
    scratch.mkdir()
    calls = config == "mini.yaml"  # the other has its commands in the text, which the proxy does not parse

    def command(n: int, *more: str) -> dict[str, Any]:
        return (
            call(COMMANDS[n], *more, number=n) if calls else text(f"I try.\n```mswea_bash_command\n{COMMANDS[n]}\n```")
        )

    made = iter([command(0), text("No command at all."), command(1, "pwd"), command(2)])

    async def main() -> None:
        async with Upstream(lambda body: [next(made)]) as upstream, proxied(lake, upstream) as base:
            mini_command = [
                str(MINI), "-m", "minisweagent.run.mini", "-t", "Write one into a.txt.", "-y", "--exit-immediately",
                "--model-class", "litellm" if calls else "litellm_textbased",
                "-m", "openai/double", "-o", str(saved), "-c", config,
                "-c", f"model.model_kwargs.api_base={base}/mini/task-1/0/v1", "-c", f"environment.cwd={scratch}",
            ]  # fmt: skip
            env = {
                "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OPENAI_API_KEY": "sk-secret-key", "MSWEA_CONFIGURED": "true",
                "MSWEA_COST_TRACKING": "ignore_errors", "MSWEA_GLOBAL_CONFIG_DIR": str(tmp_path / "config"),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            }  # fmt: skip
            mini = await asyncio.create_subprocess_exec(
                *mini_command,
                cwd=scratch,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            out, _ = await asyncio.wait_for(mini.communicate(), 90)
            assert mini.returncode == 0, out.decode()[-3000:]

    run(main)
    import_paths(lake, [saved], corpus="imported")
    log = EventLog(lake)
    ours, theirs = (log.read(corpora=[c]).to_pylist() for c in ("mini", "imported"))

    def steps(events: list[dict[str, Any]]) -> list[Any]:
        """What both can know of each step."""
        found = []
        for row in [r for r in events if r["kind"] == "action"]:
            answers = [r["observation"] for r in events if r["kind"] == "observation" and r["step"] == row["step"]]
            answers.sort(key=lambda o: o["position"])
            seen = [(o["rendered"], o["tool_call_id"]) for o in answers]
            made = [(c["id"], c["function"]) for c in json.loads(row["action"]["tool_calls"] or "[]")]
            counts = {k: row["usage"][k] for k in ("tokens_in", "tokens_out", "cache_read", "call_id")}
            dropped = bool(extra(row).get("not_in_prompt"))
            known = row["action"]["command"] if calls else None
            found.append((row["action"]["text"], known, made, counts, dropped, seen))
        return found

    mine, imported = steps(ours), steps(theirs)
    assert len(mine) == len(imported) == 4
    assert mine[:3] == imported[:3]
    assert mine[3][:5] == imported[3][:5]  # what answers the last command never reaches the model
    if calls:
        assert [s[1] for s in mine] == [COMMANDS[0], None, f"{COMMANDS[1]}\npwd", COMMANDS[2]]
    assert [s[4] for s in mine] == [False, True, False, False]
    instructions = [
        sorted((r["instruction"]["position"], r["instruction"]["role"], r["instruction"]["content"]) for r in events
               if r["kind"] == "instruction") for events in (ours, theirs)
    ]  # fmt: skip
    assert instructions[0] == instructions[1]
    hashes = {r["event_id"]: r["usage"]["prompt_hash"] for r in ours if r["kind"] == "action"}
    assert {i: prompt_hash(m) for i, m in prompts(log.read(corpora=["mini"]))} == hashes
