"""The HTTP side: who may call, and the end of trajectories; each call is passed on by `passing`.

Does not belong here: paths and headers (`address`), events (`trajectory`), what chunks mean (`replies`).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

from stepwell.errors import UsageError
from stepwell.ids import unfit_corpus
from stepwell.proxy.address import Address, tokens
from stepwell.proxy.messages import parse
from stepwell.proxy.passing import Passing, Refused
from stepwell.proxy.recorder import Recorder

_END = {"exit_status": str, "submission": str, "outcome": dict}
_OUTCOME = {"resolved": bool, "score": (int, float), "grader": str, "rule": str}
T = TypeVar("T")


class Proxy:
    """Serves from `start` to `close`.

    `key`: sent to the upstream in place of the client's; `token`: what clients must give; `timeout`: seconds without a byte
    from the upstream; `most`: bytes of one request or reply; `in_flight`: bytes of requests and replies held at once, beyond
    which clients are told to come again; `fatal` is called when calls can no longer be kept.
    """

    def __init__(
        self, upstream: str, recorder: Recorder, *, key: str | None = None, token: str | None = None,
        timeout: float = 600.0, most: int = 64 << 20, in_flight: int = 1 << 30,
        fatal: Callable[[BaseException], None] = lambda error: None,
    ) -> None:  # fmt: skip
        self.upstream, self.recorder, self.key, self.token = upstream.rstrip("/"), recorder, key, token
        self.timeout, self.most, self.in_flight, self.fatal = timeout, most, in_flight, fatal
        self.held = 0
        self.asks_usage = True
        self.session: aiohttp.ClientSession
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError when the address is taken."""
        self.session = aiohttp.ClientSession(
            # servers close a connection after 5 s without a call, and a POST on a closing one would fail
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=self.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        app = web.Application(client_max_size=self.most)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, backlog=1024).start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Take no more calls, give those under way five seconds, then break them off."""
        if self._runner is not None:
            await self._runner.cleanup()
            await self.session.close()

    async def kept(self, keeping: Coroutine[Any, Any, T]) -> T:
        """What the recorder returns, whether or not the client still waits. Raises Refused when it cannot be written."""
        try:
            return await asyncio.shield(asyncio.ensure_future(keeping))
        except OSError as error:
            self.fatal(error)
            raise Refused(500, f"the call cannot be kept: {error}") from error

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            if "Origin" in request.headers:
                raise Refused(403, "requests of web pages are not taken.")
            if self.token and not any(hmac.compare_digest(self.token.encode(), t) for t in tokens(request)):
                raise Refused(401, "the token is missing or wrong; give it as API key, or in X-Stepwell-Token.")
            address, rest = Address.of(request.rel_url.raw_path)
            if why := unfit_corpus(address.corpus):
                raise Refused(400, why)
            if rest is None:
                return await self._end(address, request)
            if self.recorder.full or self.held + (request.content_length or 0) > self.in_flight:
                raise Refused(503, "more waits than can be held; try again.")
            return await Passing(self, request, rest, await request.read()).run(address)
        except UsageError as error:
            return Refused(404, str(error)).response()
        except web.HTTPRequestEntityTooLarge:
            return Refused(413, f"the request has more than {self.most} bytes; --max-body allows more.").response()
        except Refused as refused:
            return refused.response()

    async def _end(self, address: Address, request: web.Request) -> web.Response:
        body = parse(await request.read() or b"{}")
        if request.method != "POST" or not isinstance(body, dict):
            raise Refused(400, f"give POST with a JSON object; {', '.join(_END)} have a meaning, the rest is kept.")
        told = {k: body.pop(k) for k in _END if body.get(k) is not None}
        outcome = told.get("outcome", {})
        wrong = [k for k, v in told.items() if not isinstance(v, _END[k])]
        for name, value in outcome.items() if isinstance(outcome, dict) else ():
            if name not in _OUTCOME or not isinstance(value, _OUTCOME[name]):  # type: ignore[arg-type]
                wrong.append(f"outcome.{name}")
        if wrong:
            raise Refused(
                400, f"{', '.join(wrong)} not understood; exit_status and submission are strings, outcome has resolved "
                "(true or false), score (a number), grader and rule (strings)."
            )  # fmt: skip
        n = sum(address.covers(a) for a in self.recorder.open)
        if n == 0 or (n > 1 and outcome):
            raise Refused(409 if n else 404, f"{n} trajectories are open at {request.path!r}; name one that is.")
        if "score" in outcome:
            outcome["score"] = float(outcome["score"])
        ids = await self.kept(self.recorder.end(address, {"exit_status": "ended", **told, "extra": body}))
        return web.json_response({"trajectories": ids})
