"""A model as a critic: its settings and identity, what it still has to judge in a trajectory, its replies as verdicts.

Belongs here: everything that is a function of settings, events and replies. Does not belong here: calling the model and
writing the verdicts (`judging`).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import orjson

from stepwell.chat import Call, Completion
from stepwell.critics.bounds import bounded, text_limit
from stepwell.critics.context import FORMAT, History, Point, Request, Settings, build, feedback, key_of, points
from stepwell.critics.grammar import json_schema, read
from stepwell.critics.prompts import Prompt
from stepwell.critics.streams import ESTIMATE, MESSAGE_TOKENS, Counter, Feedback, Stream
from stepwell.critics.taxonomy import Taxonomy, load
from stepwell.errors import UsageError
from stepwell.event import Event
from stepwell.ids import canonical, sha256
from stepwell.log import holding_again
from stepwell.spending import Prices

_NOTHING = {
    "steer": "fewer steps than between two judgments",
    "critique": "no attempt and no submission",
    "steps": "no step",
    "verifier": "no step",
    "pair": "no attempt beside another",
}
_UNFIT = re.compile(r"[\s,()=]+")


@dataclass(frozen=True)
class ModelCritic:
    """A prompt, a model and how it is asked.

    `context`: tokens the model can hold, prompt and reply together; `max_tokens`: the longest reply. With a `temperature`
    above 0 candidate i of `samples` has the seed `seed` + i. `structured` asks the server for JSON of the grammar's
    schema; `text_limit` bounds its free texts in characters (None: to what `max_tokens` can hold, 0: not at all, as not
    every hosted server takes bounds). Raises UsageError for settings that cannot work.
    """

    prompt: Prompt
    model: str
    revision: str | None = None
    k: int = 5
    context: int = 32_768
    max_tokens: int = 4_096
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0
    structured: bool = False
    text_limit: int | None = None
    history: History = "own"
    budget_from: float = Settings.budget_from
    counter: Counter = ESTIMATE
    prices: Prices | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.k < 1 or self.samples < 1:
            raise UsageError(f"every {self.k} steps, {self.samples} samples: both must be 1 or more.")
        if self.text_limit is not None and self.text_limit < 0:
            raise UsageError(f"a text limit of {self.text_limit} characters; allowed: 1 or more, 0 for none.")
        if self.samples > 1 and self.temperature <= 0:
            raise UsageError(f"{self.samples} samples at temperature 0 are all the same; give --temperature 0.7.")
        if self.context <= self.max_tokens:
            raise UsageError(
                f"a context of {self.context} tokens leaves nothing for the prompt beside a reply of {self.max_tokens}; "
                "lower --max-tokens or raise --context."
            )

    @cached_property
    def id(self) -> str:
        """The policy of its verdicts; free of `,()=` and blanks, as mask rules embed it."""
        model = self.model.rstrip("/").rpartition("/")[2] if self.model.startswith(("/", ".")) else self.model
        parts = [f"{self.prompt.name}@{self.prompt.version}", model + (f":{self.revision}" if self.revision else "")]
        parts += [f"k{self.k}"] if self.prompt.kind == "steer" else []
        parts += [f"t{self.temperature:g}"] if self.temperature > 0 else []
        return _UNFIT.sub("_", "/".join(parts))

    @cached_property
    def settings(self) -> Settings:
        """What decides its requests."""
        room = self.context - self.max_tokens
        return Settings(room, self.counter.name, self.k, self.history, self.budget_from)

    @cached_property
    def taxonomy(self) -> Taxonomy | None:
        """The categories its prompt names."""
        return load(self.prompt.taxonomy) if self.prompt.taxonomy else None

    @cached_property
    def prompt_id(self) -> str:
        """Identity of its prompt; computed once, as it is a hash."""
        return self.prompt.id

    @cached_property
    def taxonomy_id(self) -> str | None:
        """Identity of these categories, likewise."""
        return self.taxonomy.id if self.taxonomy else None

    @cached_property
    def sampling(self) -> dict[str, Any]:
        """How replies are drawn, the same for every call."""
        drawn: dict[str, Any] = {"seed": self.seed} if self.temperature > 0 else {}
        drawn |= {"text_limit": self.text_limit or "auto"} if self.structured and self.text_limit != 0 else {}
        return {"temperature": self.temperature, "max_tokens": self.max_tokens, "structured": self.structured, **drawn}

    @cached_property
    def identity(self) -> list[Any]:
        """What makes two replies to the same messages comparable: all that decides them but the messages."""
        return [FORMAT, self.prompt_id, self.model, self.revision, self.sampling]

    def key(self, request: Request) -> str:
        """sha256 of everything that decides the replies to a request, whichever candidate."""
        return sha256(canonical([*self.identity, request.hash]))

    def call(self, request: Request, candidate: int) -> Call:
        """The call for one candidate."""
        schema = self._schema(request.steps) if self.structured else None
        seed = self.seed + candidate if self.temperature > 0 else None
        verifier = self.prompt.kind == "verifier"
        return Call(request.messages, self.max_tokens, self.temperature, seed, schema=schema, yes_no=verifier)

    def _schema(self, steps: Sequence[int]) -> dict[str, Any]:
        schema = json_schema(self.prompt.kind, taxonomy=self.taxonomy, steps=steps)
        limit = text_limit(schema, self.max_tokens) if self.text_limit is None else self.text_limit
        return bounded(schema, limit) if limit else schema


def call_key(key: str, candidate: int) -> str:
    """Under which a completion is kept."""
    return sha256(f"{key}:{candidate}")


def kept_under(verdict: Mapping[str, Any]) -> str | None:
    """The key of the completion a verdict (a row) was read from, for `Completions.forget`; None where no model made it."""
    key = orjson.loads(verdict["extra"] or "{}").get("key")
    return None if key is None else call_key(key, verdict["verdict"]["candidate"])


@dataclass(frozen=True)
class Due:
    """One point of a trajectory: the request (or why there is none), live verdicts that answer it by candidate, and
    those of an earlier state of the trajectory or of other settings. An empty `request`: the point is gone."""

    point: Point
    request: Request | str
    key: str
    have: Mapping[int, dict[str, Any]]
    stale: Sequence[dict[str, Any]]


def walk(critic: ModelCritic, stream: Stream) -> Generator[Due, Feedback | None, None]:
    """Every point of a trajectory in order; send back the guidance its first candidate gave, or None.

    Later requests remind the critic of it, so a point can only be built when the one before is answered.
    """
    kind, guidance = critic.prompt.kind, list[Feedback]()
    recorded: dict[int | str | None, list[tuple[str, dict[str, Any]]]] = {}
    for row in stream.known:
        extra = orjson.loads(row["extra"] or "{}")
        if "key" in extra:
            recorded.setdefault(key_of(kind, row), []).append((extra["key"], row))
    found = list(points(stream, kind, critic.k))
    if not found:
        yield Due(Point(None, "", None, None), f"a trajectory has nothing to judge yet: {_NOTHING[kind]}", "", {}, [])
    for point in found:
        request = build(stream, point, guidance, critic.prompt, critic.settings, critic.counter)
        key = "" if isinstance(request, str) else critic.key(request)
        old = recorded.pop(point.key, [])
        have = {row["verdict"]["candidate"]: row for known, row in reversed(old) if known == key}
        said = yield Due(point, request, key, have, [row for known, row in old if known != key])
        guidance += [said] if said is not None and said.text else []
    for old in recorded.values():
        yield Due(Point(None, "", None, None), "", "", {}, [row for _, row in old])


def advance(dues: Generator[Due, Feedback | None, None], said: Feedback | None) -> Due | None:
    """Send guidance to a walk; the next point, None at its end."""
    try:
        return dues.send(said)
    except StopIteration:
        return None


def guidance(due: Due, new: Mapping[int, Sequence[Event]]) -> Feedback | None:
    """What the first candidate of a point said, for the requests that follow."""
    if new.get(0):
        event = new[0][0]
        return Feedback(event.event_id, event.step or 0, event.payload.get("guidance") or "")
    return feedback(due.have[0]) if 0 in due.have else None


def verdicts(
    critic: ModelCritic, stream: Stream, due: Due, candidate: int, completion: Completion, version: int | None
) -> list[Event]:
    """A reply as verdict events: one, or one a step (kind steps), where the first alone carries the reply and its usage.

    `version` of `events` is None where the trajectory still grows.
    """
    request, kind = due.request, critic.prompt.kind
    assert isinstance(request, Request)
    reading = read(kind, completion.text, taxonomy=critic.taxonomy, steps=request.steps)
    extra: dict[str, Any] = {"key": due.key, "request": critic.settings.__dict__, "omitted": request.omitted}
    extra |= {"history": request.history, "events_version": version, "problems": reading.problems}
    if stream.other is not None:
        extra |= {"first": stream.attempt, "second": stream.other.attempt, "other": stream.other.trajectory_id}
    usage = _usage(critic, request, candidate, completion)
    base = {"prompt_id": critic.prompt_id, "taxonomy_id": critic.taxonomy_id, "candidate": candidate}
    base |= {"scope": due.point.scope}
    at = None if completion.at is None else datetime.fromtimestamp(completion.at, UTC)

    def event(payload: dict[str, Any], step: int | None, cause: str | None, used: dict[str, Any]) -> Event:
        where = (stream.trajectory_id, stream.corpus, "critic", base | payload, step, critic.id, at, cause, used)
        return Event("verdict", *where, orjson.dumps(extra).decode(), f"{due.key}:{cause}")

    if kind != "steps":
        payload = {
            "severity": reading.severity,
            "detections": [asdict(d) for d in reading.detections],
            "guidance": reading.guidance,
            "judgment": reading.judgment,
            "confidence": reading.confidence if completion.yes is None else completion.yes,
            "parse_status": reading.status,
            "raw": completion.text,
        }
        if due.point.scope == "window":
            payload |= {"window_from": due.point.first, "window_to": due.point.step}
        if completion.yes is not None and reading.judgment is None:
            payload |= {"judgment": completion.yes > 0.5, "parse_status": "repaired"}
        return holding_again([event(payload, due.point.step, due.point.cause, usage)], stream.superseded)
    events = []
    causes = {turn.step: turn.event_id for turn in stream.turns}
    for number, step in enumerate(request.steps):
        label = reading.labels.get(step)
        payload = {
            "label": label,
            "guidance": reading.rationales.get(step),
            "parse_status": reading.status if label else "unparseable",
            "raw": completion.text if number == 0 else None,
        }
        shared = {k: usage[k] for k in ("call_id", "prompt_hash", "sampling")}
        events.append(event(payload, step, causes[step], shared if number else usage))
    return holding_again(events, stream.superseded)


def _usage(critic: ModelCritic, request: Request, candidate: int, said: Completion) -> dict[str, Any]:
    sampling = critic.sampling | ({"seed": critic.seed + candidate} if critic.temperature > 0 else {})
    cost = cost_of(critic, said)
    return {
        "call_id": said.call_id, "tokens_in": said.tokens_in, "tokens_out": said.tokens_out,
        "cache_read": said.cache_read, "reasoning": said.reasoning, "cost_usd": cost, "latency_s": said.latency_s,
        "price_policy": critic.prices.name if critic.prices and cost is not None else None,
        "finish": said.finish, "prompt_hash": request.hash, "sampling": canonical(sampling).decode(),
    }  # fmt: skip


def cost_of(critic: ModelCritic, said: Completion) -> float | None:
    """US dollars a completion cost; None without prices or where the server does not tell the tokens."""
    if critic.prices is None or said.tokens_in is None or said.tokens_out is None:
        return None
    return critic.prices.cost(said.tokens_in, said.cache_read or 0, said.tokens_out)


def most_cost(critic: ModelCritic, request: Request) -> float:
    """The most a call can cost; where tokens are only estimated, every byte is taken for one."""
    if critic.prices is None:
        return 0.0
    tokens = sum(request.tokens)
    if not critic.counter.exact:
        tokens = sum(len(m["content"].encode()) + MESSAGE_TOKENS for m in request.messages)
    return critic.prices.cost(tokens, 0, critic.max_tokens)
