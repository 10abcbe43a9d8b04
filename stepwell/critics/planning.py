"""What judging with a model would cost: the calls that are missing, their tokens, and what of them a server must compute.

Belongs here: counting. Does not belong here: calling and writing (`judging`).
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stepwell.chat import Message
from stepwell.critics.cache import Completions, place
from stepwell.critics.context import Request
from stepwell.critics.due import finished_key, pending
from stepwell.critics.judging import READ_AT_ONCE
from stepwell.critics.model_critic import ModelCritic, advance, call_key, guidance, verdicts, walk
from stepwell.critics.streams import COLUMNS, Feedback, streams
from stepwell.lake import Lake
from stepwell.log import EventLog

_ASSUMED = "x" * 240  # stands for guidance that is not given yet


@dataclass
class Plan:
    """What judging would do; costs are None without prices.

    `prompt_tokens` are those sent, `computed_tokens` those left when the server keeps the messages a request shares with
    the one before; `cost_prompts_usd` is what the prompts cost with that reuse, `cost_most_usd` what everything costs
    without it and with replies of full length. Guidance that is not given yet is taken to have 240 characters.
    """

    critic: str
    events_version: int | None
    n_trajectories: int = 0
    n_known: int = 0
    n_cached: int = 0
    n_calls: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    most_reply_tokens: int = 0
    cost_prompts_usd: float | None = None
    cost_most_usd: float | None = None
    not_judged: Tally[str] = field(default_factory=Tally)


def plan(lake: Lake, critic: ModelCritic, corpora: Sequence[str] | None = None, cache: Path | None = None) -> Plan:
    """Count what `judge` would call; nothing is called and nothing is written to the log."""
    log = EventLog(lake)
    version = log.version
    found = Plan(critic.id, version)
    if version is None:
        return found
    last: tuple[Message, ...] = ()
    with Completions(cache or place(lake)) as completions:
        ids = pending(log, version, completions.finished(finished_key(lake, critic, corpora)), corpora)
        found.n_trajectories = len(ids)
        for rows in log.batches(ids, version, READ_AT_ONCE, COLUMNS):
            for stream in streams(rows, critic.counter, critic.id):
                dues, said = walk(critic, stream), None
                while (due := advance(dues, said)) is not None:
                    said, request = None, due.request
                    if isinstance(request, str):
                        found.not_judged.update([request] if request else [])
                        continue
                    new = {}
                    for candidate in (c for c in range(critic.samples) if c not in due.have):
                        kept = completions.get(call_key(due.key, candidate))
                        if kept is None:
                            _count(found, request, last)
                            last = request.messages
                        else:
                            found.n_cached += 1
                            new[candidate] = verdicts(critic, stream, due, candidate, kept, version)
                    found.n_known += sum(c in due.have for c in range(critic.samples))
                    said = guidance(due, new) or Feedback("", request.point.step or 0, _ASSUMED)
    prices = critic.prices
    found.most_reply_tokens = found.n_calls * critic.max_tokens
    if prices is not None:
        reused = found.prompt_tokens - found.computed_tokens
        found.cost_prompts_usd = prices.cost(found.prompt_tokens, reused, 0)
        found.cost_most_usd = prices.cost(found.prompt_tokens, 0, found.most_reply_tokens)
    return found


def _count(found: Plan, request: Request, last: Sequence[Message]) -> None:
    shared = 0
    while shared < min(len(last), len(request.messages)) and last[shared] == request.messages[shared]:
        shared += 1
    found.n_calls += 1
    found.prompt_tokens += sum(request.tokens)
    found.computed_tokens += sum(request.tokens[shared:])
