"""What calls cost, and a limit that is kept while many are under way.

Belongs here: prices and the purse. Does not belong here: what is bought with it (the caller).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Prices:
    """US dollars for a million tokens: prompt, prompt read from the server's cache, completion (METHODS.md K11)."""

    input: float
    cached: float
    output: float

    @property
    def name(self) -> str:
        """The price policy its costs are recorded under."""
        return f"usd-per-mtok:{self.input:g}/{self.cached:g}/{self.output:g}"

    def cost(self, tokens_in: int, cache_read: int, tokens_out: int) -> float:
        """US dollars for these tokens; `cache_read` are among `tokens_in`, though some servers leave them out of it."""
        dollars = max(0, tokens_in - cache_read) * self.input + cache_read * self.cached + tokens_out * self.output
        return round(dollars / 1e6, 9)


class Overspent(Exception):
    """A call could cost more than is left, so it was not made."""


class Purse:
    """US dollars spent, and the most that calls under way can still cost; together never above the limit.

    `costs` are the dollars by role of those who asked with `pay`.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit, self.spent = limit, 0.0
        self.costs: dict[str, float] = {}
        self._reserved, self._under_way = 0.0, 0
        self._settled = asyncio.Condition()

    async def reserve(self, most: float) -> bool:
        """Set aside the most a call can cost, waiting for others to settle; False when it can never be afforded."""
        async with self._settled:
            while self.limit is not None and self.spent + self._reserved + most > self.limit:
                if self._under_way == 0:
                    return False
                await self._settled.wait()
            self._reserved += most
            self._under_way += 1
            return True

    async def settle(self, most: float, spent: float) -> None:
        """Give back what was set aside for a call, less what it did cost."""
        async with self._settled:
            self.spent += spent
            self._reserved -= most
            self._under_way -= 1
            self._settled.notify_all()

    def due(self, most: float, known: float | None) -> float:
        """What a call counts for: the most it can have cost where that is not known and a limit has to be kept."""
        unknown = 0.0 if self.limit is None else most
        return unknown if known is None else known

    async def pay(self, role: str, most: float, asked: Coroutine[Any, Any, T], cost: Callable[[T], float | None]) -> T:
        """What is asked for, paid for; raises Overspent when it could cost more than is left, having asked nothing."""
        if not await self.reserve(most):
            asked.close()
            raise Overspent(f"another call could exceed the limit of {self.limit} US dollars")
        spent = 0.0
        try:
            answer = await asked
            spent = self.due(most, cost(answer))
        finally:
            await self.settle(most, spent)
            self.costs[role] = self.costs.get(role, 0.0) + spent
        return answer
