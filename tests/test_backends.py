"""Calling a model over the OpenAI chat protocol: a real local server that fails as servers do."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from chat_server import ChatServer, Fault

from stepwell.chat import BatchBackend, Call, Completion, Failure, OpenAIBackend
from stepwell.errors import UsageError

CALL = Call(({"role": "system", "content": "Judge."}, {"role": "user", "content": "This."}), max_tokens=50)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda body: "said") as running:
        yield running


def ask(backend: OpenAIBackend | BatchBackend, *calls: Call) -> list[Completion | Failure]:
    async def run() -> list[Completion | Failure]:
        try:
            return list(await asyncio.gather(*map(backend.complete, calls)))
        finally:
            await backend.close()

    return asyncio.run(run())


def backend(server: ChatServer, **options: Any) -> OpenAIBackend:
    return OpenAIBackend("m", server.url, **({"pause": 0.01, "tries": 3} | options))


def test_a_completion_carries_text_and_usage(server: ChatServer) -> None:
    call = Call(CALL.messages, 50, 0.7, 11, schema={"type": "object"})
    (got,) = ask(backend(server), call)
    assert isinstance(got, Completion)
    assert (got.text, got.call_id, got.finish) == ("said", "chat-1", "stop")
    assert (got.tokens_in, got.cache_read, got.tokens_out) == (2, 1, 1)
    assert got.latency_s is not None
    assert got.at is not None
    (body,) = server.bodies
    assert body["messages"] == list(CALL.messages)
    assert (body["temperature"], body["seed"], body["max_tokens"], body["model"]) == (0.7, 11, 50, "m")
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_without_seed_or_schema_neither_is_sent(server: ChatServer) -> None:
    ask(backend(server), CALL)
    assert server.bodies[0].keys() == {"model", "messages", "max_tokens", "temperature"}


@pytest.mark.parametrize(
    "fault",
    [Fault(429), Fault(500), Fault(503), Fault(drop=True), Fault(body=b"<html>"), Fault(body=b"{}"), Fault(delay=0.6)],
    ids=["busy", "broken", "away", "dropped", "garbage", "empty", "slow"],
)
def test_what_may_pass_is_tried_again(server: ChatServer, fault: Fault) -> None:
    server.faults.extend([fault, fault])
    asked = backend(server, timeout=0.3)
    (got,) = ask(asked, CALL)
    assert isinstance(got, Completion)
    assert asked.n_tries == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(429), "busy"),
        (Fault(500), "server"),
        (Fault(drop=True), "connection"),
        (Fault(status=99_999), "connection"),
        (Fault(headers={"X-Policy": "x" * 20_000}), "connection"),
        (Fault(body=b'{"choices": [{}]}'), "garbage"),
        (Fault(body=b"[1]"), "garbage"),
        (Fault(body=b"[" * 100_000), "garbage"),
        (Fault(delay=0.4), "timeout"),
    ],
)
def test_what_does_not_pass_is_a_failure_with_its_reason(server: ChatServer, fault: Fault, reason: str) -> None:
    server.fault_of = lambda body: fault
    asked = backend(server, tries=2, timeout=0.2)
    (got,) = ask(asked, CALL)
    assert isinstance(got, Failure)
    assert got.reason == reason
    assert not got.permanent
    assert asked.n_tries == 2


@pytest.mark.parametrize(
    ("status", "body", "reason", "permanent"),
    [
        (400, b'{"error": {"code": "context_length_exceeded", "message": "no"}}', "context", True),
        (400, b'{"error": {"message": "This model\'s maximum context length is 8192 tokens."}}', "context", True),
        (400, b'{"message": "The prompt (9000 tokens) is too long", "code": 400}', "context", True),
        (400, b'{"error": {"message": "roles must alternate"}}', "refused", True),
        (422, b'{"error": {"message": "unknown field"}}', "refused", True),
        (401, b'{"error": {"message": "bad key"}}', "fatal", False),
        (402, b'{"error": {"message": "Insufficient Balance"}}', "fatal", False),
        (404, b'{"error": {"message": "no model m"}}', "fatal", False),
        (429, b'{"error": {"message": "pay", "code": "insufficient_quota"}}', "fatal", False),
    ],
)
def test_what_cannot_pass_is_not_tried_again(
    server: ChatServer, status: int, body: bytes, reason: str, permanent: bool
) -> None:
    server.fault_of = lambda _: Fault(status, body)
    asked = backend(server)
    (got,) = ask(asked, CALL)
    assert isinstance(got, Failure)
    assert (got.reason, got.permanent, asked.n_tries) == (reason, permanent, 1)


def test_a_server_that_is_not_there_is_a_failure() -> None:
    with ChatServer() as gone:
        url = gone.url
    (got,) = ask(OpenAIBackend("m", url, tries=2, pause=0.01), CALL)
    assert isinstance(got, Failure)
    assert got.reason == "connection"


def test_retry_after_is_respected(server: ChatServer) -> None:
    server.faults.append(Fault(429, headers={"Retry-After": "0.5"}))
    started = time.monotonic()
    ask(backend(server), CALL)
    assert time.monotonic() - started >= 0.5


def test_pauses_grow(server: ChatServer) -> None:
    server.faults.extend([Fault(500)] * 3)
    started = time.monotonic()
    ask(backend(server, tries=4, pause=0.1), CALL)
    assert time.monotonic() - started >= 0.75 * (0.1 + 0.2 + 0.4)


def test_requests_a_minute_are_bounded(server: ChatServer) -> None:
    started = time.monotonic()
    ask(backend(server, rpm=1200), *[CALL] * 9)
    assert time.monotonic() - started >= 8 * 60 / 1200


def test_calls_under_way_are_bounded(server: ChatServer) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def reply(_: dict[str, Any]) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.03)
        with lock:
            now[0] -= 1
        return "said"

    server.reply = reply
    asked = backend(server, concurrency=3)
    assert all(isinstance(got, Completion) for got in ask(asked, *[CALL] * 12))
    assert most[0] == 3
    assert all(isinstance(got, Completion) for got in ask(asked, *[CALL] * 6)), "a backend serves several event loops"


def test_the_key_comes_from_the_environment(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "abc")
    ask(backend(server, key_env="JUDGE_KEY"), CALL)
    assert server.headers[0]["authorization"] == "Bearer abc"
    assert server.headers[0]["content-type"] == "application/json"
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(UsageError, match="JUDGE_KEY"):
        OpenAIBackend("m", key_env="JUDGE_KEY")


def test_the_probability_of_yes_is_taken_from_the_first_token_that_is_yes_or_no(server: ChatServer) -> None:
    def top(token: str, p: float) -> dict[str, Any]:
        return {"token": token, "logprob": math.log(p)}

    options = [top(" yes", 0.2), top("YES", 0.4), top("NO", 0.2), top("Maybe", 0.2)]
    tokens = [top("**", 0.9) | {"top_logprobs": [top("**", 0.9)]}, top("YES", 0.4) | {"top_logprobs": options}]
    server.extra = {"logprobs": {"content": tokens}}
    call = Call(CALL.messages, 5, yes_no=True)
    (got,) = ask(backend(server), call)
    assert isinstance(got, Completion)
    assert got.yes == pytest.approx(0.75)
    assert server.bodies[0]["logprobs"] is True
    server.extra = {"logprobs": None}
    (got,) = ask(backend(server), call)
    assert isinstance(got, Completion)
    assert got.yes is None


def test_hostile_text_is_text(server: ChatServer) -> None:
    server.reply = lambda body: "half \ud800 a pair, \x00 and \u2028"
    (got,) = ask(backend(server), CALL)
    assert isinstance(got, Completion)
    assert got.text == "half \\ud800 a pair, \x00 and \u2028"


def test_an_answer_in_other_types_than_the_protocols_is_read_as_what_can_be_kept(server: ChatServer) -> None:
    function = {"name": "bash\ud800", "arguments": {"command": "view \ud800"}}
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    message = {"content": parts, "tool_calls": [{"id": 3, "function": function}]}
    answer = {
        "id": 7,
        "choices": [{"finish_reason": "\ud800", "message": message}],
        "usage": {"prompt_tokens": "9", "completion_tokens": 5.0, "prompt_tokens_details": {"cached_tokens": 2**70}},
    }  # fmt: skip
    server.fault_of = lambda body: Fault(body=json.dumps(answer).encode())
    (got,) = ask(backend(server), CALL)
    assert isinstance(got, Completion)
    assert (got.text, got.call_id, got.finish) == ("one two", "7", "\\ud800")
    assert (got.tokens_in, got.tokens_out, got.cache_read) == (None, 5, None)
    (call,) = got.tool_calls
    assert (call["id"], call["function"]["name"]) == ("3", "bash\\ud800")
    assert json.loads(call["function"]["arguments"]) == {"command": "view \ud800"}


@pytest.mark.parametrize(
    "said", [{"content": 5}, {"content": "x", "tool_calls": ["bash"]}, {"tool_calls": [{"function": "f"}]}]
)
def test_a_message_that_is_none_is_a_failure(server: ChatServer, said: dict[str, Any]) -> None:
    server.extra = {"message": said}
    (got,) = ask(backend(server), CALL)
    assert isinstance(got, Failure)
    assert got.reason == "garbage"


def test_an_engine_in_this_process_gets_what_waits_as_one_batch() -> None:
    sizes: list[int] = []

    def batch(calls: Sequence[Call]) -> list[Completion | Failure]:
        sizes.append(len(calls))
        time.sleep(0.05)
        return [Completion(str(call.max_tokens)) for call in calls]

    calls = [Call(CALL.messages, n) for n in range(25)]
    got = ask(BatchBackend(batch, size=10), *calls)
    assert [g.text for g in got if isinstance(g, Completion)] == [str(n) for n in range(25)]
    assert sizes == [10, 10, 5]


def test_an_engine_that_breaks_raises_for_every_call() -> None:
    def batch(calls: Sequence[Call]) -> list[Completion | Failure]:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        ask(BatchBackend(batch), CALL, CALL)
