"""Whose a call is, as its path, headers and body say it; what of a request is never passed on.

    /CORPUS[/NAME[/ATTEMPT]]/v1/...      a call
    /CORPUS[/NAME[/ATTEMPT]]/end         the trajectories there have ended

Parts are percent-encoded where they hold a slash (`rollouts%2Fone`). Does not belong here: answering (`server`).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from aiohttp import web
from multidict import CIMultiDict

from stepwell.chat import Message, prompt_hash
from stepwell.errors import UsageError
from stepwell.ids import storable

_NAME = re.compile(r"[^\x00-\x1f]{1,300}")
_ATTEMPT = re.compile(r"\d{1,9}")
_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade", "host", "content-length", "content-encoding", "accept-encoding", "expect",
}  # fmt: skip
_KEYS = ("Authorization", "X-Api-Key", "Api-Key")


@dataclass(frozen=True)
class Address:
    """A trajectory (all three), or every trajectory below a corpus or name."""

    corpus: str
    name: str | None = None
    attempt: int | None = None

    @classmethod
    def of(cls, path: str) -> tuple[Address, str | None]:
        """A path as it was sent -> the address, and what follows `v1` (None: it has ended). Raises UsageError."""
        parts = path.strip("/").split("/")
        cut = parts.index("v1") if "v1" in parts else len(parts) - 1
        rest = "/".join(parts[cut + 1 :]) if "v1" in parts else None
        whose = [storable(unquote(p)) for p in parts[:cut]]
        bad = [p for p in whose if not _NAME.fullmatch(p)] or {".", ".."} & {unquote(p) for p in parts}
        ends = rest is None and parts[-1] != "end"
        if bad or ends or not 1 <= len(whose) <= 3 or not (len(whose) < 3 or _ATTEMPT.fullmatch(whose[2])):
            raise UsageError(
                f"path {path[:200]!r}; allowed: /CORPUS/v1/..., /CORPUS/NAME/v1/..., /CORPUS/NAME/ATTEMPT/v1/... with a "
                "number as ATTEMPT, or `end` in place of `v1/...`. Set the base URL to what stands before `...`."
            )
        return cls(*whose[:2], *map(int, whose[2:])), None if rest == "end" else rest

    def covers(self, other: Address) -> bool:
        """Whether the other is this address, or one below it."""
        below = self.name is None or (self.name == other.name and self.attempt in (None, other.attempt))
        return self.corpus == other.corpus and below

    def opened(self, parsed: Any, headers: Mapping[str, str], upstream: str) -> dict[str, Any]:
        """What is known of a trajectory when its first call comes: columns of `start`.

        The task is that of the header X-Stepwell-Task, else `metadata.task_id` of the body, else NAME.
        """
        metadata = parsed.get("metadata") if isinstance(parsed, dict) else None
        named = metadata.get("task_id") if isinstance(metadata, dict) else None
        told = {k: storable(headers.get(f"X-Stepwell-{k}")) for k in ("Task", "Agent", "Run")}
        agent = storable(headers.get("User-Agent"))
        at = urlsplit(upstream)
        where = f"{at.scheme}://{at.hostname}{f':{at.port}' if at.port else ''}{at.path}"
        return {
            "task_id": told["Task"] or (named if isinstance(named, str) else None) or self.name,
            "agent": told["Agent"], "run_id": told["Run"], "config": {"upstream": where, "user_agent": agent},
        }  # fmt: skip

    def told_apart(self, messages: list[Message] | None) -> Address:
        """The address itself, or, when it names a corpus only, the one of the conversation that begins as these messages.

        A conversation is known by its system messages and the first message after them.
        """
        if self.name is not None:
            return self
        given = messages or []
        first = next((i for i, m in enumerate(given) if m.get("role") not in ("system", "developer")), len(given))
        return Address(self.corpus, prompt_hash(given[: first + 1])[:32])


def tokens(request: web.Request) -> list[bytes]:
    """What a client gives that may be the proxy's token."""
    given = [request.headers.get(k, "").removeprefix("Bearer ") for k in (*_KEYS, "X-Stepwell-Token")]
    return [v.encode("utf-8", "surrogateescape") for v in given]


def passed_on(request: web.Request, token: str | None, key: str | None) -> CIMultiDict[str]:
    """Headers for the upstream: the client's, without the proxy's token, with `key` in place of the client's."""
    headers = CIMultiDict(
        (k, v) for k, v in request.headers.items() if k.lower() not in _HOP and not k.lower().startswith("x-stepwell-")
    )
    for name in _KEYS:
        given = headers.get(name, "").removeprefix("Bearer ").encode("utf-8", "surrogateescape")
        if name in headers and (key is not None or (token and hmac.compare_digest(given, token.encode()))):
            del headers[name]
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    headers["Accept-Encoding"] = "identity"
    return headers


def passed_back(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Headers of the upstream's answer for the client."""
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in _HOP)


def without_keys(text: str, request: web.Request, *keys: str | None) -> str:
    """Text an upstream sent, with whatever keys it repeats left out."""
    given = [k.decode("utf-8", "replace") for k in tokens(request)]
    for key in [k for k in (*given, *keys) if k]:
        text = text.replace(key, "[key]").replace(orjson.dumps(key).decode()[1:-1], "[key]")
    return text
