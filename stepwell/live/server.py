"""The HTTP side of receiving: who may send, how much, in which shape, and the answers.

Does not belong here: what an event is (`shapes`), keeping it (`keeping`), the description (`openapi`).
"""

from __future__ import annotations

import asyncio
import hmac
import math
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import orjson
from aiohttp import web

from stepwell.errors import BadInput
from stepwell.event import Event
from stepwell.live.keeping import Keeper, clean, clean_traces
from stepwell.live.openapi import MOST_EVENTS, openapi
from stepwell.live.shapes import Bad, elements, events_of, lines
from stepwell.live.traces import Batch, of_protobuf, spans_of

NDJSON = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
PROTOBUF = "application/x-protobuf"
_OPEN = ("/healthz", "/openapi.json")
_AT_ONCE = 32
"""Bodies of the largest size that may be in memory at once."""
_BODY_S = 60.0


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers

    def response(self) -> web.Response:
        """The answer."""
        return _json({"error": {"status": self.status, "message": self.message}}, self.status, self.headers)


def _json(told: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(told), status=status, headers=headers, content_type="application/json")


class Server:
    """Serves from `start` to `close`; `most`: bytes of one unpacked body; `fatal` is called when nothing can be kept."""

    def __init__(
        self, keeper: Keeper, *, token: str | None = None, most: int = 32 << 20,
        fatal: Callable[[BaseException], None] = lambda error: None,
    ) -> None:  # fmt: skip
        self.keeper, self.token, self.most, self.fatal = keeper, token, most, fatal
        self.broken: str | None = None
        self._description = orjson.dumps(openapi(bool(token)))
        self._held = 0
        self._checking = ThreadPoolExecutor(1)
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError when the address is taken."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_post("/v1/events", self._events)
        app.router.add_post("/v1/traces", self._traces)
        app.router.add_get("/v1/status", self._status, allow_head=False)
        app.router.add_get("/healthz", self._health, allow_head=False)
        app.router.add_get("/openapi.json", self._described, allow_head=False)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5, auto_decompress=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, backlog=1024).start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Take no more requests, and give those under way five seconds."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._checking.shutdown()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            if "Origin" in request.headers:
                raise Refused(403, "requests of web pages are not taken.")
            if self.token and request.path not in _OPEN:
                given = request.headers.get("Authorization", "").removeprefix("Bearer ")
                if not hmac.compare_digest(self.token.encode(), given.encode("utf-8", "surrogateescape")):
                    raise Refused(401, "the token is missing or wrong; give it as `Authorization: Bearer TOKEN`.")
            return await handler(request)
        except Refused as refused:
            return refused.response()
        except web.HTTPException as error:
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return Refused(error.status, error.reason, **allow).response()

    @asynccontextmanager
    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body as it came; what has come of it counts as held while this lasts, so that slow clients hold up nobody.

        Raises Refused for one that is too large or too slow, and while as much waits or is held as may.
        """
        if self.keeper.full:
            raise self._later(f"{self.keeper.n_waiting} events wait for the lake")
        parts: list[bytes] = []
        size = 0
        try:
            try:
                async with asyncio.timeout(_BODY_S):
                    async for part in request.content.iter_any():
                        size, self._held = size + len(part), self._held + len(part)
                        if size > self.most:
                            raise Refused(413, f"more than {self.most} bytes; send it in parts.")
                        if self._held > _AT_ONCE * self.most:
                            raise self._later("other requests fill the memory")
                        parts.append(part)
            except TimeoutError as error:
                raise Refused(408, f"the body did not come within {_BODY_S:.0f} s.") from error
            body = b"".join(parts)
            parts.clear()
            yield body
        finally:
            self._held -= size

    def _later(self, why: str) -> Refused:
        wait = str(math.ceil(self.keeper.every))
        return Refused(429, f"{why}; send it again in {wait} s.", **{"Retry-After": wait})

    def _unpacked(self, request: web.Request, body: bytes) -> bytes:
        """The body without its Content-Encoding, at most `most` bytes of it in memory. Raises Refused."""
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        if encoding == "identity":
            return body
        if encoding not in ("gzip", "deflate"):
            raise Refused(415, f"content encoding {encoding!r} is not taken; give gzip, deflate or none.")
        unzip = zlib.decompressobj(wbits=47)  # the header says which of the two
        try:
            plain = unzip.decompress(body, self.most + 1)
        except zlib.error as error:
            raise Refused(400, f"the body is not packed as Content-Encoding says: {error}") from error
        if len(plain) > self.most:
            raise Refused(413, f"more than {self.most} bytes once unpacked; send it in parts.")
        if not unzip.eof or unzip.unused_data:
            raise Refused(400, "the packed body breaks off, or something follows it.")
        return plain

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._checking, work, *arguments)

    async def _kept(self, keeping: Awaitable[None]) -> None:
        """Wait until it is on disk, whether or not the client still waits. Raises Refused when it cannot be written."""
        try:
            await asyncio.shield(asyncio.ensure_future(keeping))
        except OSError as error:
            self.broken = str(error)
            self.fatal(error)
            raise Refused(500, f"it cannot be kept: {error}") from error

    async def _events(self, request: web.Request) -> web.Response:
        async with self._body(request) as body:
            n, events, ids, bad = await self._in_thread(self._checked, request, body)
        if n:
            await self._kept(self.keeper.take(events, bad))
        told = [{"index": b.index, "reason": b.reason, "detail": b.detail} for b in bad]
        return _json({"taken": len(events), "event_ids": ids, "rejected": told}, 422 if bad else 200)

    def _checked(self, request: web.Request, packed: bytes) -> tuple[int, list[Event], list[str | None], list[Bad]]:
        """How many were sent, the events, the id of each that was sent, and what is no event. Raises Refused."""
        body, content_type = self._unpacked(request, packed), request.content_type
        if content_type == "application/json":
            given = _parsed(body)
            if not isinstance(given, list):
                raise Refused(400, "give a JSON array of events, or an event a line as application/x-ndjson.")
            placed, bad = events_of(elements(given))
        elif content_type in NDJSON:
            placed, bad = events_of(lines(body))
        else:
            raise Refused(415, f"{content_type!r} is not taken; give application/json or {NDJSON[0]}.")
        n = len(placed) + len(bad)
        if n > MOST_EVENTS:
            raise Refused(400, f"{n} events; at most {MOST_EVENTS} are taken at once. Send them in parts.")
        events, bad = clean(self.keeper.redactor, [event for _, event in placed], bad)
        ids: list[str | None] = [None] * n
        for (index, _), event in zip(placed, events, strict=True):
            ids[index] = event.event_id
        return n, events, ids, bad

    async def _traces(self, request: web.Request) -> web.Response:
        async with self._body(request) as body:
            batch, n_spans = await self._in_thread(self._checked_traces, request, body)
        if n_spans:
            await self._kept(self.keeper.take_traces(batch, n_spans))
        if request.content_type == PROTOBUF:
            return web.Response(body=b"", content_type=PROTOBUF)
        return _json({})

    def _checked_traces(self, request: web.Request, packed: bytes) -> tuple[Batch, int]:
        body, content_type = self._unpacked(request, packed), request.content_type
        if content_type == PROTOBUF:
            try:
                given: Any = of_protobuf(body)
            except BadInput as error:
                raise Refused(400, error.detail) from error
        elif content_type == "application/json":
            given = _parsed(body)
            spans = given.get("resourceSpans") if isinstance(given, dict) else None
            if not isinstance(spans, list) or not all(isinstance(s, dict) for s in spans):
                raise Refused(400, "give an object with `resourceSpans`, a list of objects, as OTLP writes it.")
        else:
            raise Refused(415, f"{content_type!r} is not taken; give application/json or {PROTOBUF}.")
        return clean_traces(self.keeper.redactor, given), sum(1 for _ in spans_of(given))

    async def _status(self, request: web.Request) -> web.Response:
        keeper = self.keeper
        told = {"waiting": keeper.n_waiting, "open": len(keeper.lifecycle.open), "full": keeper.full}
        return _json({**told, "failing": keeper.failing, **asdict(keeper.counts)})

    async def _health(self, request: web.Request) -> web.Response:
        if self.broken is not None:
            raise Refused(503, f"nothing can be kept: {self.broken}")
        return _json({"status": "ok"})

    async def _described(self, request: web.Request) -> web.Response:
        return web.Response(body=self._description, content_type="application/json")


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is no JSON: {error}") from error
