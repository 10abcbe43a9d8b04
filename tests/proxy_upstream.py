"""A double for an upstream model: a real aiohttp server that speaks the OpenAI protocol, streams, and fails when told to.

Also a program: `python -m tests.proxy_upstream` prints its base URL and serves until its input closes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Reply = dict[str, Any]


def text(content: str, **message: Any) -> Reply:
    """A message that says something."""
    return {"role": "assistant", "content": content, **message}


def call(*commands: str, number: int = 0) -> Reply:
    """A message that calls the tool `bash` once a command."""
    calls = [
        {"id": f"call-{number}-{i}", "type": "function",
         "function": {"name": "bash", "arguments": json.dumps({"command": c})}}
        for i, c in enumerate(commands)
    ]  # fmt: skip
    return {"role": "assistant", "content": None, "tool_calls": calls}


def echo(body: dict[str, Any]) -> list[Reply]:
    """One reply a choice, which counts the messages."""
    return [text(f"reply {i} to {len(body.get('messages', ()))}") for i in range(body.get("n") or 1)]


@dataclass
class Upstream:
    """Answers `reply(body)`; faults queued are met first: a status, or how many chunks of a stream come before it is cut."""

    reply: Callable[[dict[str, Any]], list[Reply]] = echo
    faults: deque[tuple[str, int]] = field(default_factory=deque)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    pause: float = 0.0
    knows_usage: bool = True
    url: str = ""

    async def __aenter__(self) -> Upstream:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/v1/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        if request.method == "GET":
            return web.json_response({"object": "list", "data": [{"id": "double"}]})
        body = await request.json()
        self.bodies.append(body)
        fault, number = self.faults.popleft() if self.faults else ("", 0)
        if fault == "status":
            return web.json_response(
                {"error": {"message": f"no, {request.headers.get('Authorization')}"}}, status=number
            )
        if fault == "drop" and request.transport is not None:
            request.transport.abort()
            return web.Response()
        if not request.path.endswith("completions"):
            return web.json_response({"object": "response", "echo": body})
        if body.get("stream_options") and not self.knows_usage:
            return web.json_response({"error": {"message": "unknown field stream_options"}}, status=400)
        usage = {"prompt_tokens": len(json.dumps(body.get("messages") or body.get("prompt"))), "completion_tokens": 7}
        usage |= {"total_tokens": 0, "prompt_tokens_details": {"cached_tokens": 3}}
        head = {"id": f"cmpl-{len(self.bodies)}", "created": 1, "model": "double-1", "object": "chat.completion"}
        replies = self.reply(body)
        if not body.get("stream"):
            await asyncio.sleep(self.pause)
            choices: list[Any] = [{"index": i, "message": m, "finish_reason": "stop"} for i, m in enumerate(replies)]
            if "prompt" in body:
                choices = [{"index": 0, "text": replies[0]["content"], "finish_reason": "stop"}]
            return web.json_response({**head, "choices": choices, "usage": usage})
        return await self._stream(request, body, head, replies, usage, number if fault == "cut" else None)

    async def _stream(
        self, request: web.Request, body: Any, head: Any, replies: list[Reply], usage: Any, cut: int | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        pieces = [p for i, m in enumerate(replies) for p in _pieces(i, m)]
        for n, choice in enumerate(pieces):
            if n == cut and request.transport is not None:
                request.transport.abort()
                return response
            chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await asyncio.sleep(self.pause)
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(b"data: " + json.dumps({**head, "choices": [], "usage": usage}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _pieces(index: int, message: Reply) -> list[dict[str, Any]]:
    """The deltas of one choice: the role, the text three characters at a time, each call in three pieces."""
    deltas: list[Any] = [{"role": "assistant", "content": ""}] if message.get("content") else [{"role": "assistant"}]
    said = message.get("content") or ""
    deltas += [{"content": said[i : i + 3]} for i in range(0, len(said), 3)]
    deltas += [{"reasoning_content": message["reasoning_content"]}] if message.get("reasoning_content") else []
    for number, made in enumerate(message.get("tool_calls") or ()):
        arguments = made["function"]["arguments"]
        first = {"index": number, "id": made["id"], "type": "function"}
        deltas.append({"tool_calls": [{**first, "function": {"name": made["function"]["name"], "arguments": ""}}]})
        for part in (arguments[:5], arguments[5:]):
            deltas.append({"tool_calls": [{"index": number, "function": {"arguments": part}}]})
    choices: list[dict[str, Any]] = [{"index": index, "delta": d, "finish_reason": None} for d in deltas]
    return [*choices, {"index": index, "delta": {}, "finish_reason": "stop"}]


async def main() -> None:
    """Print the base URL and serve until the input closes."""
    async with Upstream() as upstream:
        print(upstream.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
