"""One call on its way: to the upstream, back to the client piece by piece, and to the recorder before it is complete.

Does not belong here: who may call (`server`), events (`trajectory`).
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from stepwell.chat import Message, prompt_hash
from stepwell.proxy.address import Address, passed_back, passed_on, without_keys
from stepwell.proxy.messages import parse
from stepwell.proxy.replies import DONE, Assembly, Events, completion_of, data_of
from stepwell.proxy.trajectory import Record

if TYPE_CHECKING:
    from stepwell.proxy.server import Proxy

_NOT_SAMPLING = {"messages", "prompt", "tools", "stream", "stream_options", "metadata", "model"}


class Refused(Exception):
    """A request that is answered here, with an error in the shape of the protocol."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message

    def response(self) -> web.Response:
        """The answer."""
        error = {"message": f"stepwell proxy: {self.message}", "type": "stepwell_proxy", "code": self.status}
        headers = {"Retry-After": "5"} if self.status == 503 else None
        return web.json_response({"error": error}, status=self.status, headers=headers)


class _ClientGone(Exception):
    """The client no longer reads."""


class _TooLarge(Exception):
    """The upstream sends more than is kept."""


class Passing:
    """A request that is passed on; one object a request."""

    def __init__(self, proxy: Proxy, request: web.Request, rest: str, body: bytes) -> None:
        self.proxy, self.request, self.rest, self.body = proxy, request, rest, body
        self.parsed: Any = parse(body) if request.method == "POST" else None
        self.messages = messages_of(rest, self.parsed)
        self.sent, self.clock = time.time(), time.monotonic()
        self.first: float | None = None
        self.assembly = Assembly()
        self.told = False
        self.begun: web.StreamResponse | None = None

    async def run(self, address: Address) -> web.StreamResponse:
        """Pass it on, and keep what comes of it. Raises Refused for an upstream that does not answer."""
        if self.request.method != "POST":
            return await self._asked()  # lists of models and the like: nothing that was said
        recorder = self.proxy.recorder
        about = address.opened(self.parsed, self.request.headers, self.proxy.upstream)
        self.trajectory = recorder.trajectory(address.told_apart(self.messages), about)
        self.known = self.trajectory.n
        self.proxy.held += len(self.body)
        try:
            with recorder.under_way(self.trajectory):
                return await self._asked()
        finally:
            self.proxy.held -= len(self.body)

    async def _asked(self) -> web.StreamResponse:
        """The answer; whatever else happens is kept as a failed call."""
        try:
            return await self._ask()
        except asyncio.CancelledError:
            await self._keep_aborted()
            raise
        except _ClientGone:
            await self._keep_aborted()
            return self._broken_off()
        except (aiohttp.ClientError, TimeoutError, _TooLarge) as error:
            why = f"{type(error).__name__}: {error}"
            late = isinstance(error, TimeoutError)
            await self._keep_failed(504 if late else 502, why)
            if self.begun is None:
                what = f"did not answer for {self.proxy.timeout:g} s" if late else "cannot be reached or broke off"
                raise Refused(504 if late else 502, f"the upstream {what}: {why}") from error
            return self._broken_off()

    def _broken_off(self) -> web.StreamResponse:
        """What was begun, without the end that would make it look whole."""
        assert self.begun is not None
        if self.request.transport is not None:
            self.request.transport.abort()
        return self.begun

    async def _ask(self) -> web.StreamResponse:
        options = self.parsed.get("stream_options") if self.messages else None
        asked = bool(options.get("include_usage")) if isinstance(options, dict) else False
        added = self.messages is not None and self.parsed.get("stream") is True and not asked
        if added and self.proxy.asks_usage and (options is None or isinstance(options, dict)):
            wider = {**self.parsed, "stream_options": {**(options or {}), "include_usage": True}}
            async with self._upstream(orjson.dumps(wider)) as answer:
                if answer.status not in (400, 422) or b"stream_options" not in (said := await self._read(answer)):
                    return await self._answer(answer, True, said if answer.status in (400, 422) else None)
            self.proxy.asks_usage = False  # an upstream that does not know the option
        async with self._upstream(self.body) as answer:
            return await self._answer(answer, False)

    def _upstream(self, body: bytes) -> Any:
        proxy, query = self.proxy, self.request.rel_url.raw_query_string
        url = URL(f"{proxy.upstream}/{self.rest}{f'?{query}' if query else ''}", encoded=True)
        headers = passed_on(self.request, proxy.token, proxy.key)
        return proxy.session.request(
            self.request.method, url, data=body or None, headers=headers, allow_redirects=False
        )

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for chunk in answer.content.iter_any():
            size += len(chunk)
            self._within(size)
            parts.append(chunk)
        return b"".join(parts)

    def _within(self, size: int) -> None:
        if size > self.proxy.most:
            raise _TooLarge(f"the reply has more than {self.proxy.most} bytes")

    async def _answer(
        self, answer: aiohttp.ClientResponse, added: bool, body: bytes | None = None
    ) -> web.StreamResponse:
        headers = passed_back(answer.headers)
        if self.request.method == "POST":
            headers["X-Stepwell-Trajectory"] = self.trajectory.trajectory_id
        if self.messages is not None and answer.status < 400 and answer.content_type == "text/event-stream":
            return await self._stream(answer, headers, added)
        body = await self._read(answer) if body is None else body
        completion = completion_of(body) if self.messages is not None and answer.status < 400 else None
        if completion is not None:
            await self._keep_call(completion)
        elif answer.status >= 400 or self.messages is not None:
            await self._keep_failed(answer.status, _readable(body))
        else:
            await self._keep({"kind": "other", "status": answer.status, "response": _readable(body)})
        return web.Response(status=answer.status, headers=headers, body=body)

    async def _stream(self, answer: aiohttp.ClientResponse, headers: Any, added: bool) -> web.StreamResponse:
        """Pass events on as they come; the last one waits until the call is kept."""
        self.begun = web.StreamResponse(status=answer.status, headers=headers)
        await self.begun.prepare(self.request)
        events, held, size = Events(), b"", 0
        async for chunk in answer.content.iter_any():
            size += len(chunk)
            self._within(size)
            out = []
            for event, data in events.feed(chunk):
                if held or data.strip() == DONE:
                    held += event
                elif not (self._heard(data) and added):
                    out.append(event)
            if out:
                await self._write(b"".join(out))
        if not held:
            self._heard(data_of(events.rest))
        completion = self.assembly.completion()
        if self.assembly.error is not None or not completion["choices"]:
            await self._keep_failed(answer.status, orjson.dumps(self.assembly.error).decode())
        else:
            await self._keep_call(completion)
        await self._write(held + events.rest)
        await self.begun.write_eof()
        return self.begun

    def _heard(self, data: bytes) -> bool:
        """Take in the data of an event; True when it carries nothing but usage."""
        if data and self.first is None:
            self.first = time.monotonic()
        return self.assembly.add(parse(data))

    async def _write(self, data: bytes) -> None:
        assert self.begun is not None
        try:
            await self.begun.write(data)
        except ConnectionError as error:
            raise _ClientGone from error

    async def _keep(self, record: Record) -> None:
        """Hand the call to the recorder, once."""
        if self.told or self.request.method != "POST":
            return
        self.told = True
        latency = round(time.monotonic() - self.clock, 6)
        record |= {"api": self.rest, "known": self.known, "sent": self.sent, "at": time.time(), "latency_s": latency}
        if record["kind"] != "call":
            record["request"] = None if self.messages is not None else _readable(self.body)
        await self.proxy.kept(self.proxy.recorder.record(self.trajectory, record))

    def _asked_for(self) -> dict[str, Any]:
        model = self.parsed.get("model")
        return {"model": model if isinstance(model, str) else None, "prompt_hash": prompt_hash(self.messages or ())}

    async def _keep_call(self, completion: dict[str, Any], aborted: bool = False) -> None:
        record: Record = {"kind": "call", "messages": self.messages, "reply": completion, **self._asked_for()}
        record |= {"tools": self.parsed.get("tools"), "aborted": aborted or None}
        record["sampling"] = {k: v for k, v in self.parsed.items() if k not in _NOT_SAMPLING}
        record["first_token_s"] = None if self.first is None else round(self.first - self.clock, 6)
        await self._keep(record)

    async def _keep_failed(self, status: int | None, error: str) -> None:
        known = {} if self.messages is None else {"n_messages": len(self.messages), **self._asked_for()}
        error = without_keys(error, self.request, self.proxy.key)
        partial = None if self.assembly.empty else self.assembly.completion()
        await self._keep({"kind": "failed", "status": status, "error": error, "reply": partial, **known})

    async def _keep_aborted(self) -> None:
        """What came before the client went: an action when something was said, else a failed call."""
        if self.assembly.empty:
            await self._keep_failed(None, "the client went away")
        else:
            await self._keep_call(self.assembly.completion(), aborted=True)


def messages_of(api: str, parsed: Any) -> list[Message] | None:
    """The messages of a call that is understood; a text completion's prompt is one user message. None for any other."""
    if not isinstance(parsed, dict):
        return None
    if api == "completions" and isinstance(parsed.get("prompt"), str):
        return [{"role": "user", "content": parsed["prompt"]}]
    messages = parsed.get("messages")
    whole = api == "chat/completions" and isinstance(messages, list) and all(isinstance(m, dict) for m in messages)
    return messages if whole and messages else None


def _readable(body: bytes) -> str:
    """A body as text; as base64 when it is none."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(body).decode()}"
