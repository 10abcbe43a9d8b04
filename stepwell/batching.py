"""Many that ask one by one, answered many at once: whatever waits when an engine is free goes into its next batch.

Belongs here: who waits for whom. Does not belong here: what is asked (`rollout`, `critics`) and the engine (`jobs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class _Member:
    """One of a crowd; it waits while any call of it waits."""

    waiting = 0


_member: ContextVar[_Member | None] = ContextVar("member", default=None)


class Crowd:
    """Tasks of which each is either busy or waits for an answer; a batch is best begun when all of them wait."""

    def __init__(self) -> None:
        self._alive: set[_Member] = set()
        self._changed = asyncio.Event()

    @contextmanager
    def member(self) -> Iterator[None]:
        """The present task belongs to the crowd as long as this lasts; tasks it starts wait in its name."""
        mine = _Member()
        self._alive.add(mine)
        token = _member.set(mine)
        try:
            yield
        finally:
            _member.reset(token)
            self._alive.discard(mine)
            self._changed.set()

    @contextmanager
    def waits(self) -> Iterator[None]:
        """The present task waits for an answer as long as this lasts."""
        mine = _member.get()
        if mine is not None:
            mine.waiting += 1
            self._changed.set()
        try:
            yield
        finally:
            if mine is not None:
                mine.waiting -= 1

    async def assembled(self, linger_s: float) -> None:
        """Return when every member waits, or after `linger_s` seconds: a slow command holds nobody up for longer."""
        try:
            async with asyncio.timeout(linger_s):
                while any(not m.waiting for m in self._alive):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass


class Batcher(Generic[Q, A]):
    """Answers calls in batches of at most `size` by a function run in a thread, one batch at a time."""

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A]],
        size: int,
        crowd: Crowd | None = None,
        linger_s: float = 0.01,
    ) -> None:
        self.answer, self.size, self.crowd, self.linger_s = answer, size, crowd, linger_s
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """Wait for the batch that holds this question; what the function raises is raised here."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        if self.crowd is None:
            return await future
        with self.crowd.waits():
            return await future

    async def _run(self) -> None:
        while self._waiting:
            if self.crowd is None:
                await asyncio.sleep(self.linger_s)  # let those that wake together come together
            else:
                await self.crowd.assembled(self.linger_s)
            taken, self._waiting = self._waiting[: self.size], self._waiting[self.size :]
            try:
                answers = await asyncio.to_thread(self.answer, [question for question, _ in taken])
                for (_, future), answer in zip(taken, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
            except Exception as error:
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)

    async def close(self) -> None:
        """Wait for the batch that runs."""
        if self._runner is not None:
            await asyncio.wait([self._runner])
            self._runner = None
