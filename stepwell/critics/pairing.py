"""Judging two attempts side by side, each pair in both orders: verdicts of scope `pair` in the log.

Belongs here: which two are shown, in which order. Does not belong here: how they are shown (`context`), asking and resuming
(`judging`), which pairs there are (`stepwell.pairs`), what the answers come to (`evaluation`).

A reply is a verdict of the attempt that was shown first: its `judgment` says whether that one is the better, `extra` names both
(`first`, `second`) and the trajectory of the second (`other`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepwell.chat import Backend
from stepwell.critics.cache import Completions
from stepwell.critics.judging import Report, ask
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.streams import COLUMNS, Stream, meeting, streams
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.pairs import Pair

_AT_ONCE = 25  # pairs read at a time


def judge_pairs(
    lake: Lake,
    critic: ModelCritic,
    backend: Backend,
    pairs: Sequence[Pair],
    *,
    max_cost: float | None = None,
    progress: Callable[[Report], None] | None = None,
    cache: Path | None = None,
) -> Report:
    """Compare each pair in both orders, `critic.samples` times each; what is in the log or the cache is not asked again.

    Raises UsageError for a critic whose prompt does not compare; limits and other errors are those of `judging.judge`.
    """
    if critic.prompt.kind != "pair":
        raise UsageError(
            f"prompt {critic.prompt.name!r} is of kind {critic.prompt.kind}; pairs need one of kind pair, such as pairwise."
        )
    return ask(lake, critic, backend, _Pairs(critic, pairs), max_cost=max_cost, progress=progress, cache=cache)


@dataclass(frozen=True)
class _Pairs:
    """Pairs as work: two streams each."""

    critic: ModelCritic
    pairs: Sequence[Pair]

    def read(self, log: EventLog, version: int, completions: Completions) -> tuple[int, Iterator[list[Stream]]]:
        parts = (self.pairs[i : i + _AT_ONCE] for i in range(0, len(self.pairs), _AT_ONCE))
        return 2 * len(self.pairs), (self._both_orders(log, version, part) for part in parts)

    def _both_orders(self, log: EventLog, version: int, pairs: Sequence[Pair]) -> list[Stream]:
        ids = sorted({a.trajectory_id for pair in pairs for a in (pair.right, pair.wrong)})
        rows = log.read(version, trajectory_ids=ids, columns=COLUMNS)
        found = {s.trajectory_id: s for s in streams(rows, self.critic.counter, self.critic.id)}
        return [
            meeting(found[first.trajectory_id], found[second.trajectory_id], first.id, second.id)
            for pair in pairs
            for first, second in ((pair.right, pair.wrong), (pair.wrong, pair.right))
        ]

    def finish(self, version: int, completions: Completions) -> None:
        """Nothing to note: which pairs there are is decided anew each time."""
