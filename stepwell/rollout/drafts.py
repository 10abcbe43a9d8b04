"""First solutions, written once whichever arms revise them: arms are compared on the same ones, and they are paid for once.

Belongs here: who writes a draft and who waits for it. Does not belong here: asking a model (the caller does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stepwell.batching import Crowd
from stepwell.chat import Message, prompt_hash
from stepwell.ids import digest


@dataclass(frozen=True)
class Known:
    """A draft: the attempt event that recorded it ("" before that), the reply, its usage."""

    event_id: str
    text: str
    usage: Mapping[str, Any]


@dataclass(frozen=True)
class Drafts:
    """Drafts by what decided them: those `known` from the log, those being asked for.

    `of` is the identity of the generator and how it samples.
    """

    crowd: Crowd
    of: str
    known: dict[str, Known] = field(default_factory=dict)
    asked: dict[str, asyncio.Future[Known]] = field(default_factory=dict)

    def draw(self, key: str, messages: Sequence[Message]) -> str:
        """What decides a draft: who is asked, which turn it is, and what is asked."""
        return digest(self.of, key, prompt_hash(messages))

    async def get(self, draw: str, ask: Callable[[], Awaitable[Known]]) -> Known:
        """A draft: of the log, of another tree that is asking for it, or asked for now; then `keep` it when recorded."""
        if draw in self.known:
            return _unpaid(self.known[draw])
        while (asked := self.asked.get(draw)) is not None:
            with self.crowd.waits():
                await asyncio.wait([asked])
            if not asked.cancelled():
                return _unpaid(asked.result())
            if self.asked.get(draw) is asked:
                del self.asked[draw]
        future = self.asked[draw] = asyncio.get_running_loop().create_future()
        try:
            return await ask()
        except BaseException:
            future.cancel()
            raise

    def keep(self, draw: str, draft: Known) -> None:
        """Give a draft that is recorded now to those that wait for it."""
        asked = self.asked.get(draw)
        if asked is not None and not asked.done():
            asked.set_result(draft)


def _unpaid(draft: Known) -> Known:
    """A draft without what it cost, which is counted where it was written."""
    return replace(draft, usage={k: v for k, v in draft.usage.items() if k in ("sampling", "finish")})
