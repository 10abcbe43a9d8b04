"""Critics at the wheel: a trajectory that still grows is judged by the very code that judges it afterwards.

Belongs here: reviewing the events so far, and a critique in words for the agent. Does not belong here: when a critic is
asked and what is done with its words (`rollout`). The request is built as `judging` builds it, so a verdict given live is
known to a later `stepwell judge` and its prompt can be made again from the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from stepwell.chat import Backend, Completion, Failure, OpenAIBackend
from stepwell.critics import prompts, rules
from stepwell.critics.context import Request
from stepwell.critics.model_critic import Due, ModelCritic, advance, cost_of, guidance, most_cost, verdicts, walk
from stepwell.critics.streams import ESTIMATE, Counter, streams
from stepwell.critics.taxonomy import load
from stepwell.critics.turns import trajectories
from stepwell.errors import UsageError
from stepwell.event import Event, to_table
from stepwell.log import in_order
from stepwell.settings import Critic as CriticSettings
from stepwell.spending import Prices
from stepwell.supervision import Critique, Supervisor

STATUS = ("on track", "needs correction", "critical")


def told(payload: Mapping[str, Any]) -> str:
    """The payload of a verdict in words for the agent: status, what was found and what to do, guidance."""
    lines = [] if payload.get("severity") is None else [f"Status: {STATUS[payload['severity']]}."]
    for d in payload.get("detections") or ():
        category = str(d["category"] or "").replace("_", " ")
        lines.append(f"- {category}: {d['evidence'] or 'found'}" + (f" Do: {d['recovery']}" if d["recovery"] else ""))
    if payload.get("guidance"):
        lines.append(f"Guidance: {payload['guidance']}")
    return "\n".join(lines)


class LiveModel:
    """A model critic at the wheel; of several candidates the first readable one, or the shortest, is delivered."""

    def __init__(self, critic: ModelCritic, backend: Backend, select: str = "first") -> None:
        self.critic, self.backend, self.select = critic, backend, select
        self.name = critic.id

    async def review(self, events: Sequence[Event]) -> Critique:
        """Ask for the last point of the trajectory; a call that fails leaves nothing to deliver."""
        stream, due = self._due(events)
        if due is None or isinstance(due.request, str):
            return Critique(why="nothing to judge" if due is None else f"no request: {due.request}")
        made, failed, costs = [], "", []
        for candidate in range(self.critic.samples):
            said = await self.backend.complete(self.critic.call(due.request, candidate))
            if isinstance(said, Completion):
                made += verdicts(self.critic, stream, due, candidate, said, None)
                costs.append(cost_of(self.critic, said))
            else:
                failed = _why(said)
        cost = None if None in costs else sum(c for c in costs if c is not None)
        readable = [e for e in made if e.payload["parse_status"] != "unparseable"]
        if not readable:
            return Critique(tuple(made), None, "", failed or "unparseable", cost)
        texts = [(told(e.payload), e) for e in readable]
        text, chosen = min(texts, key=lambda t: len(t[0])) if self.select == "shortest" else texts[0]
        return Critique(tuple(made), chosen.event_id, text, "", cost)

    def most_cost(self, events: Sequence[Event]) -> float:
        """Cost of the prompt and of replies of full length."""
        if self.critic.prices is None:
            return 0.0
        _, due = self._due(events)
        if due is None or isinstance(due.request, str):
            return 0.0
        return self.critic.samples * most_cost(self.critic, due.request)

    async def close(self) -> None:
        """Close the connections to the server."""
        await self.backend.close()

    def _due(self, events: Sequence[Event]) -> tuple[Any, Due | None]:
        """The stream so far, and its last point as far as it is not judged."""
        (stream,) = streams(_rows(events), self.critic.counter, self.critic.id)
        dues, last, said = walk(self.critic, stream), None, None
        while (due := advance(dues, said)) is not None:
            said = guidance(due, {})
            last = due if due.point.cause is not None else last
        return stream, last if last is not None and isinstance(last.request, Request | str) else None


class LiveRules:
    """The deterministic step rules at the wheel: what they found in the last k steps, as one verdict on that window."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.name = f"{rules.POLICY}/live/k{k}"

    async def review(self, events: Sequence[Event]) -> Critique:
        """Judge the last k steps in the light of all."""
        (trajectory,) = trajectories(_rows(events))
        taxonomy = load()
        last = trajectory.turns[-1]
        window = {turn.step for turn in trajectory.turns[-self.k :]}
        found = [f for f in rules.findings(trajectory.turns) if f.step in window and f.severity > 0]
        detections = [
            {"category": f.category, "evidence": f.evidence, "recovery": taxonomy[f.category].recovery if f.category else None}
            for f in found
        ]  # fmt: skip
        guidance = "Look at these before the next step." if found else "Nothing stands out; carry on."
        payload = {
            "scope": "window", "window_from": min(window), "window_to": last.step, "parse_status": "ok",
            "severity": max((f.severity for f in found), default=0), "detections": detections, "guidance": guidance,
            "taxonomy_id": taxonomy.id,
        }  # fmt: skip
        verdict = Event(
            "verdict", trajectory.trajectory_id, trajectory.corpus, "critic", payload, step=last.step, policy=self.name,
            caused_by=last.action_id,
        )  # fmt: skip
        return Critique((verdict,), verdict.event_id, told(payload))

    def most_cost(self, events: Sequence[Event]) -> float:
        """Nothing."""
        return 0.0

    async def close(self) -> None:
        """Nothing to do."""


def supervisor_of(settings: CriticSettings, k: int, backend: Backend | None = None) -> Supervisor:
    """The critic a recipe names; `backend` answers in place of a server, for a model in this process."""
    if settings.kind == "rules":
        return LiveRules(k)
    if settings.model is None:
        raise UsageError(f"a critic of kind {settings.kind!r} needs `model`; name it in the recipe.")
    if backend is None and settings.kind == "model":
        raise UsageError(f"the critic {settings.model!r} is a model directory; run it with `python -m jobs.steer`.")
    prices = None if settings.prices is None else Prices(**settings.prices.model_dump())
    critic = ModelCritic(
        prompts.load(settings.prompt), settings.model, settings.revision, k, settings.context, settings.max_tokens,
        settings.temperature, settings.samples, settings.seed, settings.structured, history=settings.history,
        counter=Counter.of(settings.tokenizer) if settings.tokenizer else ESTIMATE, prices=prices,
    )  # fmt: skip
    server = backend or OpenAIBackend(
        settings.model, settings.base_url, key_env=settings.key_env, concurrency=settings.concurrency
    )
    return LiveModel(critic, server, settings.select)


def _rows(events: Sequence[Event]) -> Any:
    return in_order(to_table(events, "live", datetime.now(UTC)))


def _why(failure: Failure) -> str:
    return f"the call failed: {orjson.dumps([failure.reason, failure.detail[:200]]).decode()}"
