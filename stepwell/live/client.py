"""A client in a few lines: sends events, waits while the server is full, and gives their ids back.

Belongs here: what a program in Python needs to record its own agent. Does not belong here: building events.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import orjson


class Client:
    """Sends to one server. Sending the same events again after an error is safe: nothing is written twice."""

    def __init__(self, url: str, token: str | None = None, tries: int = 8) -> None:
        self.url, self.tries = url.rstrip("/"), tries
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def send(self, events: Sequence[dict[str, Any]], size: int = 1000) -> Iterator[dict[str, Any]]:
        """Events as objects -> the server's answer for every `size` of them: `taken`, `event_ids`, `rejected`.

        Raises OSError when the server cannot be reached or answers with an error `tries` times.
        """
        for begin in range(0, len(events), size):
            yield self._send(orjson.dumps(list(events[begin : begin + size])))

    def _send(self, body: bytes) -> dict[str, Any]:
        for n in range(self.tries):
            try:
                request = urllib.request.Request(f"{self.url}/v1/events", body, self._headers)
                with urllib.request.urlopen(request, timeout=60) as reply:
                    return dict(orjson.loads(reply.read()))
            except urllib.error.HTTPError as error:
                with error:
                    told = error.read()
                if error.code == 422:
                    return dict(orjson.loads(told))
                if error.code not in (429, 503) or n + 1 == self.tries:
                    raise OSError(
                        f"{self.url} answered {error.code}: {told[:500].decode('utf-8', 'replace')}"
                    ) from error
                time.sleep(float(error.headers.get("Retry-After") or 1))
            except (OSError, http.client.HTTPException) as error:
                if n + 1 == self.tries:
                    raise OSError(f"{self.url} cannot be reached: {error}") from error
                time.sleep(0.1 * 2**n)
        raise OSError(f"no try left for {self.url}; give at least one.")
