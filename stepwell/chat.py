"""Calling a model: one call in, one completion or the reason there is none out.

Belongs here: the protocol, servers that speak the OpenAI chat protocol, and engines in this process that answer many calls
at once (the engine itself lives in `jobs`). Does not belong here: what is asked, caching, cost (the caller).
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from stepwell.batching import Batcher
from stepwell.errors import UsageError
from stepwell.ids import sha256, storable, storable_whole

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

Message = dict[str, Any]
_OVERFLOW = re.compile(
    r"context.{0,20}(length|window|size)|max_model_len|(prompt|input).{0,40}too long|too many tokens", re.IGNORECASE
)
_FATAL = {
    401: "the key was refused",
    402: "the account has no credit left",
    403: "access is forbidden",
    404: "no such model or address",
}
_LONGEST_WAIT = 60.0
_LONGEST_ASKED = 600.0


def prompt_hash(messages: Sequence[Message]) -> str:
    """sha256 of the canonical JSON of chat messages (which hold no nulls, so that nothing need be looked for)."""
    return sha256(orjson.dumps(messages, option=orjson.OPT_SORT_KEYS))


@dataclass(frozen=True)
class Call:
    """One request of a model; `schema` asks for JSON of that schema, `yes_no` for the probability of YES against NO.

    `tools` are schemas of functions the model may call, as in the OpenAI protocol.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    top_p: float = 1.0
    tools: tuple[Mapping[str, Any], ...] = ()
    schema: Mapping[str, Any] | None = None
    yes_no: bool = False


@dataclass(frozen=True)
class Completion:
    """What the model said; `yes` is e^yes / (e^yes + e^no) where it was asked for and given; `at` is Unix time.

    `tool_calls` are in chat shape, arguments as JSON strings; `thinking` is reasoning a server keeps apart from the text.
    """

    text: str
    call_id: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cache_read: int | None = None
    reasoning: int | None = None
    latency_s: float | None = None
    finish: str | None = None
    yes: float | None = None
    at: float | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    thinking: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why there is no completion.

    `reason` is context (the prompt is too long), refused, timeout, busy, server, connection, garbage or fatal. One that is
    `permanent` comes again however often the call is made; after one that is fatal no call can succeed.
    """

    reason: str
    detail: str

    @property
    def permanent(self) -> bool:
        """Whether trying again later is pointless."""
        return self.reason in ("context", "refused")


class Backend(Protocol):
    """Anything that completes calls; `concurrency` says how many it wants at once."""

    concurrency: int

    async def complete(self, call: Call) -> Completion | Failure:
        """Answer one call; never raises for what a model or server did."""

    async def close(self) -> None:
        """Release what was opened."""


class BatchBackend:
    """An engine that answers many calls at once (`batch`, run in a thread): whatever waits goes into the next batch."""

    def __init__(self, batch: Callable[[Sequence[Call]], Sequence[Completion | Failure]], size: int = 256) -> None:
        self.concurrency = size
        self._batcher = Batcher(batch, size)

    async def complete(self, call: Call) -> Completion | Failure:
        """Wait for the batch that holds this call."""
        return await self._batcher.ask(call)

    async def close(self) -> None:
        """Wait for the batch that runs."""
        await self._batcher.close()


class OpenAIBackend:
    """A server that speaks the OpenAI chat protocol, tried again with growing pauses while it is busy or away.

    `rpm`: most requests a minute, tries included; `timeout`: seconds for one try; `tries`: most tries of a call (STEER has
    10, pausing 2 s, 4 s, 8 s...; here at most 60 s, or what the server asks for). A prompt over the model's context is not
    tried again. The key is read from the environment variable `key_env`; a server of one's own needs none.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        key_env: str = "OPENAI_API_KEY",
        concurrency: int = 16,
        rpm: float | None = None,
        timeout: float = 300.0,
        tries: int = 10,
        pause: float = 2.0,
    ) -> None:
        self.model, self.base_url, self.key = model, base_url, os.environ.get(key_env)
        if self.key is None and base_url is None:
            raise UsageError(f"no key in ${key_env} and no --base-url; set the key, or name a server of your own.")
        self.concurrency, self.rpm, self.timeout = concurrency, rpm, timeout
        self.tries, self.pause = tries, pause
        self.n_tries = 0
        self._client: AsyncOpenAI | None = None
        self._slots = asyncio.Semaphore(concurrency)
        self._next = 0.0  # when another request may be sent

    async def complete(self, call: Call) -> Completion | Failure:
        """Answer one call, trying again where that can help."""
        body = orjson.dumps(self._body(call))
        async with self._slots:
            for number in range(self.tries):
                await self._turn()
                answer, wait = await self._try(body, call.yes_no)
                if wait is None or number == self.tries - 1:
                    break
                grown = min(self.pause * 2**number, _LONGEST_WAIT) * random.uniform(0.75, 1.25)
                await asyncio.sleep(min(max(wait, grown), _LONGEST_ASKED))
        return answer

    def _body(self, call: Call) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": call.messages, "max_tokens": call.max_tokens}
        body["temperature"] = call.temperature
        if call.top_p < 1:
            body["top_p"] = call.top_p
        if call.tools:
            body["tools"] = call.tools
        if call.seed is not None:
            body["seed"] = call.seed
        if call.schema is not None:
            schema = {"name": "verdict", "schema": call.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if call.yes_no:
            body |= {"logprobs": True, "top_logprobs": 20}
        return body

    async def _turn(self) -> None:
        """Wait until another request may be sent."""
        self.n_tries += 1
        if self.rpm:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + 60 / self.rpm
            await asyncio.sleep(start - now)

    async def _try(self, body: bytes, yes_no: bool) -> tuple[Completion | Failure, float | None]:
        """One try -> what came of it, and the least seconds to wait before another (None: no use)."""
        import aiohttp
        import openai

        if self._client is None:
            key = self.key or "none"
            transport = openai.DefaultAioHttpClient()  # half the processor time of the default one
            options: dict[str, Any] = {"max_retries": 0, "timeout": None, "http_client": transport}
            self._client = openai.AsyncOpenAI(base_url=self.base_url, api_key=key, **options)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout):
                # the typed method spends ten times as long on copying the messages as on the request
                raw = await self._client.post("/chat/completions", cast_to=bytes, content=body)
            return _completion(json.loads(raw), time.monotonic() - started, yes_no), None
        except TimeoutError:
            return Failure("timeout", f"no answer within {self.timeout:g} s"), 0.0
        except openai.APIStatusError as error:
            return _refusal(error)
        except openai.APIConnectionError as error:  # the transport calls a refused connection a timeout
            return Failure("connection", str(error.__cause__ or error)), 0.0
        except aiohttp.ClientError as error:  # what is no HTTP, and more headers than it takes, come as they are
            return Failure("connection", f"{type(error).__name__}: {error}"[:300]), 0.0
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            return Failure("garbage", f"the answer is no chat completion: {type(error).__name__}: {error}"), 0.0

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client, self._slots = None, asyncio.Semaphore(self.concurrency)  # both belong to one event loop


def _refusal(error: APIStatusError) -> tuple[Failure, float | None]:
    detail = f"status {error.status_code}: {error.message[:300]}"
    if error.status_code in _FATAL:
        return Failure("fatal", f"{_FATAL[error.status_code]} ({detail})"), None
    if error.code == "insufficient_quota":
        return Failure("fatal", f"the quota is used up ({detail})"), None
    if error.code == "context_length_exceeded" or (error.status_code in (400, 413, 422) and _OVERFLOW.search(detail)):
        return Failure("context", detail), None
    if error.status_code == 429:
        return Failure("busy", detail), _asked(error.response.headers)
    if error.status_code >= 500 or error.status_code in (408, 409):
        return Failure("server", detail), _asked(error.response.headers)
    return Failure("refused", detail), None


def _asked(headers: Mapping[str, str]) -> float:
    """Seconds a server asks us to wait, 0 when it does not say."""
    value = headers.get("retry-after") or "0"
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _completion(answer: dict[str, Any], latency: float, yes_no: bool) -> Completion:
    choice = answer["choices"][0]
    usage = answer.get("usage") or {}
    message = choice["message"]
    thinking = message.get("reasoning_content") or message.get("reasoning")
    return Completion(
        text=_said(message.get("content")),
        call_id=_name(answer.get("id")),
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
        cache_read=_count((usage.get("prompt_tokens_details") or {}).get("cached_tokens")),
        reasoning=_count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens")),
        latency_s=round(latency, 6),
        finish=_name(choice.get("finish_reason")),
        yes=yes_of((choice.get("logprobs") or {}).get("content") or ()) if yes_no else None,
        at=round(time.time(), 6),
        tool_calls=tuple(map(_called, message.get("tool_calls") or ())),
        thinking=storable(thinking) if isinstance(thinking, str) else None,
    )


def _said(content: Any) -> str:
    """The text of a reply; some servers give it in parts, thinking among them."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError(f"the content is {type(content).__name__}, no text")
    return str(storable(content or ""))


def _called(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call as it can be stored and sent again: names are text, arguments JSON."""
    function = dict(call["function"])
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        function["arguments"] = json.dumps(arguments)
    call = {**call, "function": function} | ({"id": _name(call["id"])} if "id" in call else {})
    made: dict[str, Any] = orjson.loads(orjson.dumps(storable_whole(call)))
    return made


def _name(value: Any) -> str | None:
    """An id or a reason as text: some servers number theirs."""
    return None if value is None else str(storable(str(value)))


def _count(value: Any) -> int | None:
    """A number of tokens; what is none is not known."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63
    return int(value) if known else None


def yes_of(tokens: Iterable[Mapping[str, Any]]) -> float | None:
    """p(YES) against p(NO) at the first token that is either (SWE-Gym's verifier, METHODS.md 5); None when none is.

    `tokens` have `token`, `logprob` and `top_logprobs`, as in the OpenAI protocol.
    """
    for token in tokens:
        if _word(token["token"]):
            mass = {"YES": 0.0, "NO": 0.0}
            for option in [t for t in token.get("top_logprobs") or [token] if _word(t["token"])]:
                mass[_word(option["token"])] += math.exp(option["logprob"])
            total = sum(mass.values())
            return mass["YES"] / total if total > 0 else None
    return None


def _word(token: str) -> str:
    word = token.strip(" \n\t*\"'`.:").upper()
    return word if word in ("YES", "NO") else ""
