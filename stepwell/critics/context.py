"""What a critic is asked: the chat requests of a trajectory, cut to a budget.

Belongs here: where the points of judgment lie, the messages of a request, and its hash. Does not belong here: what the
prompts say (`prompts`), reading trajectories (`streams`), calling a model (`stepwell.chat`), keeping what it said (`judging`),
making the messages again from the log (`rerendering`).

The multiturn form of STEER (METHODS.md 1.2): system = the prompt's; user = the task, headed by the agent's own system text
where it has one; then every turn as an assistant and a user message; last, a user message with the request. Only that last
message varies from point to point, so a server that keeps prefixes computes each turn once. System, task and request are
never cut; the oldest turns are dropped whole, several at a time (`left_out`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

from stepwell.chat import Message, prompt_hash
from stepwell.critics.prompts import Prompt
from stepwell.critics.streams import ESTIMATE, Counter, Feedback, Stream

FORMAT = "stepwell-request@1"
"""Version of the messages made here; it is part of every request's identity."""
LAST_FEEDBACKS = 5
KEPT = 0.7
"""Share of the room that turns fill after some were dropped, where a trajectory is asked about again and again."""
NO_FEEDBACK = "(none yet)"
_PLACE = re.compile(r"\{(history|budget|n_steps)\}")

History = Literal["own", "delivered", "none"]


@dataclass(frozen=True)
class Settings:
    """What decides a request beside prompt and trajectory; recorded with every verdict.

    `prompt_tokens`: the budget. `counting`: name of the Counter. `k`: steps between two points (steer). `history`: which
    feedback the critic is reminded of: its `own` earlier guidance, what was `delivered` to the agent, or `none`.
    `budget_from`: share of the step limit from which the budget note is given (STEER: step 100 of 150).
    """

    prompt_tokens: int
    counting: str = ESTIMATE.name
    k: int = 5
    history: History = "own"
    budget_from: float = 2 / 3
    format: str = FORMAT


@dataclass(frozen=True)
class Point:
    """Where judgment is passed: after the first `upto` turns, or on a `solution`; `cause` is the event it answers.

    `key` tells the points of a trajectory apart: the last step (steer), the event judged (critique), else None.
    """

    key: int | str | None
    scope: str
    step: int | None
    cause: str | None
    upto: int = 0
    first: int | None = None
    solution: str | None = None


@dataclass(frozen=True)
class Request:
    """Messages for one point with the tokens of each; `omitted` oldest turns; the `steps` shown; ids of the `history`."""

    point: Point
    messages: tuple[Message, ...]
    tokens: tuple[int, ...]
    omitted: int
    steps: tuple[int, ...]
    history: tuple[str, ...]

    @cached_property
    def hash(self) -> str:
        """The `prompt_hash` of its verdicts."""
        return prompt_hash(self.messages)


def points(stream: Stream, kind: str, k: int) -> Iterator[Point]:
    """Where a trajectory is judged: every k steps (steer), once (steps, verifier), each solution (critique), or beside
    another attempt (pair).

    Steps after the last full window of k are not judged, as in STEER.
    """
    turns = stream.turns
    if kind == "critique":
        for event_id, step, code in stream.attempts:
            yield Point(event_id, "attempt", step, event_id, solution=code)
        if not stream.attempts and stream.end is not None:
            yield Point(stream.end[0], "trajectory", None, stream.end[0], solution=stream.end[1])
    elif kind == "steer":
        for upto in range(k, len(turns) + 1, k):
            first, last = turns[upto - k].step, turns[upto - 1]
            yield Point(last.step, "step" if k == 1 else "window", last.step, last.event_id, upto, first)
    elif kind == "pair":
        if stream.other is not None and (stream.attempts or turns):
            cause = stream.attempts[0][0] if stream.attempts else stream.end[0] if stream.end else turns[-1].event_id
            yield Point(None, "pair", None, cause, len(turns))
    elif turns:
        cause = stream.end[0] if stream.end and kind == "verifier" else turns[-1].event_id
        yield Point(None, "step" if kind == "steps" else "trajectory", None, cause, len(turns))


def build(
    stream: Stream,
    point: Point,
    guidance: Sequence[Feedback],
    prompt: Prompt,
    settings: Settings,
    counter: Counter,
    omitted: int | None = None,
) -> Request | str:
    """The request for a point, or why there can be none: what is never cut leaves no room for a single turn.

    `guidance` is the critic's own so far; only what came before the point is used. `omitted` fixes how many of the oldest
    turns are dropped instead of counting tokens.
    """
    if stream.other is not None:
        return _side_by_side(stream, stream.other, point, prompt, settings, counter, omitted)
    given = {"own": guidance, "delivered": stream.delivered, "none": ()}[settings.history]
    step = point.step if point.step is not None else 1 << 31
    past = [f for f in given if f.step < step][-LAST_FEEDBACKS:] if point.solution is None else []
    turns = stream.turns[: point.upto]
    fixed = [{"role": "system", "content": prompt.system}, {"role": "user", "content": stream.task}]
    fixed += [{"role": "assistant", "content": point.solution}] if point.solution is not None else []
    counts = [counter.message(m["content"]) for m in fixed]
    request = _request(prompt, stream, point, past, settings, len(turns))
    marker = counter.count("[step 1000]\n") if prompt.kind == "steps" else 0
    room = settings.prompt_tokens - sum(counts) - counter.message(request)
    if omitted is None:
        costs = [sum(turn.tokens) + marker for turn in turns]
        omitted = left_out(costs, room, KEPT if prompt.kind == "steer" else 1.0)
        if room < 0 or (turns and omitted == len(turns)):
            return f"system, task and request leave no room for one turn within {settings.prompt_tokens} tokens"
    messages, shown = fixed, turns[omitted:]
    for turn in shown:
        said = f"[step {turn.step}]\n{turn.said}" if prompt.kind == "steps" else turn.said
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": turn.seen}]
        counts += [turn.tokens[0] + marker, turn.tokens[1]]
    if omitted:
        request = _request(prompt, stream, point, past, settings, len(shown))
    messages.append({"role": "user", "content": request})
    counts.append(counter.message(request))
    steps = tuple(turn.step for turn in shown)
    return Request(point, tuple(messages), tuple(counts), omitted, steps, tuple(f.event_id for f in past))


def _side_by_side(
    first: Stream, second: Stream, point: Point, prompt: Prompt, settings: Settings, counter: Counter, omitted: int | None
) -> Request | str:  # fmt: skip
    """Two attempts as A and B in one message; where not everything fits, of both at most the same number of last turns.

    `omitted` is what the longer one loses. All but the order is the same when they change places.
    """
    sides = (first, second)
    if not all(side.attempts or side.turns for side in sides):
        return "an attempt has neither a turn nor a solution"
    task, longest = min(sides, key=lambda s: s.attempt).task, max(len(side.turns) for side in sides)

    def message(kept: int) -> str:
        shown = sum(min(kept, len(side.turns)) for side in sides)
        attempts = (f"# Attempt {name}\n\n{_attempt(side, kept)}" for name, side in zip("AB", sides, strict=True))
        return "\n\n".join([task, *attempts, "# Your judgment", _request(prompt, first, point, (), settings, shown)])

    room = settings.prompt_tokens - counter.message(prompt.system) - counter.message(message(0))
    if omitted is None:
        each = counter.count(_AROUND)
        costs = [sum(sum(s.turns[-i].tokens) + each for s in sides if i <= len(s.turns)) for i in range(1, longest + 1)]
        kept = sum(total <= room for total in accumulate(costs))
        if room < 0 or (longest and not kept):
            return f"task, request and one turn of each attempt do not fit {settings.prompt_tokens} tokens"
        omitted = longest - kept
    messages = ({"role": "system", "content": prompt.system}, {"role": "user", "content": message(longest - omitted)})
    return Request(point, messages, tuple(counter.message(m["content"]) for m in messages), omitted, (), ())


_AROUND = "[step 1000] The agent:\n\n\n\nThe environment:\n\n\n\n"


def _attempt(stream: Stream, kept: int) -> str:
    """A solution, or the last turns of a trajectory."""
    if stream.attempts:
        return f"```\n{stream.attempts[0][2]}\n```"
    turns = stream.turns[len(stream.turns) - min(kept, len(stream.turns)) :]
    gone = len(stream.turns) - len(turns)
    shown = [f"[step {t.step}] The agent:\n\n{t.said}\n\nThe environment:\n\n{t.seen}" for t in turns]
    note = [f"(The first {gone} of its {len(stream.turns)} turns are left out.)"] if gone else []
    return "\n\n".join([*note, *shown])


def left_out(costs: Sequence[int], room: int, kept: float) -> int:
    """How many of the oldest turns are dropped so that the rest fits a room of tokens.

    Walks through the turns as they came: whenever they no longer fit, the oldest go until they fill at most the share `kept`
    of the room. So the first turn shown stays the same for many points, and with it the prefix a server has computed.
    The room varies a little with the request; where prefixes are to last it is taken in steps, at most an eighth of it.
    """
    bits = max(0, room.bit_length() - 4) if kept < 1 else 0
    coarse = room >> bits << bits
    first = total = 0
    for number, cost in enumerate(costs):
        total += cost
        if total > coarse:
            while first <= number and total > kept * coarse:
                total -= costs[first]
                first += 1
    if first == len(costs) and costs and costs[-1] <= room:
        return len(costs) - 1
    return first


def _request(
    prompt: Prompt, stream: Stream, point: Point, past: Sequence[Feedback], settings: Settings, n_steps: int
) -> str:
    """The last message: the prompt's request with what the critic said before and, late in the run, the budget note."""
    said = [f"Feedback {i} (after step {f.step}): {f.text}" for i, f in enumerate(past, 1)]
    limit, budget = stream.step_limit, ""
    if prompt.budget and limit and point.upto >= round(settings.budget_from * limit):
        budget = prompt.budget.replace("{current_step}", str(point.upto)).replace("{step_limit}", str(limit))
    asked = prompt.request if budget else prompt.request.replace("{budget}\n\n", "")
    values = {"history": "\n".join(said) or NO_FEEDBACK, "budget": budget, "n_steps": str(n_steps)}
    return _PLACE.sub(lambda place: values[place[1]], asked)


def key_of(kind: str, verdict: Mapping[str, Any]) -> int | str | None:
    """Key of the point a verdict (a row) is about."""
    return {"steer": verdict["step"], "critique": verdict["caused_by"]}.get(kind)


def feedback(row: Mapping[str, Any]) -> Feedback:
    """What a verdict or a feedback event (a row) adds to the history of later requests."""
    text = row["feedback"]["text"] if row.get("feedback") else row["verdict"]["guidance"]
    return Feedback(row["event_id"], row["step"], text or "")
