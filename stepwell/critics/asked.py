"""Requests of critics made again for those who learn from them, with the replies (METHODS.md 1.3 and 2.1).

Belongs here: which verdicts are one reply, the messages it answers, its text. Does not belong here: choosing among replies
(`datasets`), how messages are made (`context`), checking the prompts of a log (`rerendering`).

A model's reply is learnt under the very messages it was asked with: made again from the log they must have the recorded
hash. One that was guided by a hint is given the messages without it. Rules and scripted critics record no request; theirs is
made of the prompt that the settings name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from stepwell.asking import Asked, Said
from stepwell.chat import prompt_hash
from stepwell.critics import prompts, taxonomy
from stepwell.critics.context import Point, Request, Settings, build, feedback, key_of, points
from stepwell.critics.grammar import read, render
from stepwell.critics.prompts import Prompt
from stepwell.critics.reading import Detection, Reading
from stepwell.critics.streams import ESTIMATE, Feedback, Stream, streams
from stepwell.data_settings import Critiques
from stepwell.errors import StepwellError, UsageError
from stepwell.log import live
from stepwell.recipe import Recipe

GUIDED = "-guided"
"""How the names of prompts end that a hint was added to."""
_SHORTENS = {"steer": 2, "verifier": 2}
"""Where the turns begin in requests that may lose some: `steps` are labelled one by one, so none may go."""
_NO_ROOM = "task and request leave no room for a turn"
Row = dict[str, Any]


@dataclass(frozen=True)
class Asker:
    """Requests and replies as the settings of a dataset want them; see `stepwell.asking.Asker`."""

    settings: Critiques

    @cached_property
    def prompt(self) -> Prompt | None:
        """The prompt that the settings name; raises UnknownName for one there is not."""
        return None if self.settings.prompt is None else prompts.load(self.settings.prompt)

    @property
    def identity(self) -> str:
        """The id of the prompt that the settings name, which covers its wording."""
        return "" if self.prompt is None else self.prompt.id

    @cached_property
    def request(self) -> Settings:
        """What decides requests that nobody recorded."""
        return Settings(self.settings.prompt_tokens, k=self.settings.k, history=self.settings.history)

    def said(self, events: pa.Table) -> Mapping[str, list[Said]]:
        """Trajectory -> every reply of the critics that count (without a name: of actor critic), in canonical order."""
        rows = _of_kind(events, "verdict", "feedback")
        given = {r["event_id"]: feedback(r) for r in rows if r["step"] is not None}
        held = live(events)
        hinted = _hinted(held)
        mine = [r for r in _of_kind(held, "verdict") if self._counts(r)]
        by_stream = {s: list(group) for s, group in groupby(mine, key=lambda r: str(r["trajectory_id"]))}
        found: dict[str, list[Said]] = {}
        for stream in streams(events, ESTIMATE):
            rows = by_stream.get(stream.trajectory_id, [])
            own: dict[str, list[Feedback]] = {}
            for r in rows:
                if r["event_id"] in given and given[r["event_id"]].text:
                    own.setdefault(r["policy"], []).append(given[r["event_id"]])
            told = [self._reply(stream, g, given, own.get(g[0]["policy"], []), hinted) for g in _replies(rows)]
            found[stream.trajectory_id] = told
        return found

    def asked(self, events: pa.Table, kind: str) -> Mapping[str, list[Asked | str]]:
        """Trajectory -> the request for each of its points under the prompt of the settings, or of the kind's own name."""
        prompt = self.prompt or prompts.load(kind)
        if prompt.kind != kind:
            raise UsageError(
                f"prompt {self.settings.prompt!r} is for critics of kind {prompt.kind}; name one of kind {kind}."
            )
        found: dict[str, list[Asked | str]] = {}
        for stream in streams(events, ESTIMATE):
            requests = [
                (p, build(stream, p, (), prompt, self.request, ESTIMATE)) for p in points(stream, kind, self.settings.k)
            ]
            found[stream.trajectory_id] = [
                _asked(stream, point, made, kind) if isinstance(made, Request) else _NO_ROOM for point, made in requests
            ]
        return found

    def _counts(self, row: Row) -> bool:
        wanted = self.settings.critic
        return bool(row["actor"] == "critic" if wanted is None else row["policy"] == wanted)

    def _reply(
        self, stream: Stream, rows: Sequence[Row], given: Mapping[str, Feedback], own: Sequence[Feedback], hinted: set[str]
    ) -> Said:  # fmt: skip
        first, extra = rows[0], orjson.loads(rows[0]["extra"] or "{}")
        name = str(first["verdict"]["prompt_id"] or "").partition("@")[0]
        recorded, guided = "request" in extra, name.endswith(GUIDED)
        labels = {r["step"]: r["verdict"]["label"] for r in rows if r["verdict"]["label"]}
        said = Said(
            first["policy"] or "", tuple(r["event_id"] for r in rows), first["verdict"]["raw"] or "",
            {**first["verdict"], "step": first["step"]}, labels,
            readable=all(r["verdict"]["parse_status"] != "unparseable" for r in rows),
            hinted=guided or (not recorded and first["caused_by"] in hinted), leaks=tuple(extra.get("leaks") or ()),
        )  # fmt: skip
        prompt = self._wording(name, first["verdict"]["prompt_id"], guided) if recorded else self.prompt
        if prompt is None:
            why = "asked with a prompt that is not here" if recorded else "no request is recorded: name a prompt"
            return replace(said, why=why)
        settings = Settings(**extra["request"]) if recorded else self.request
        key = None if prompt.kind in ("steps", "verifier") else key_of(prompt.kind, first)
        point = next((p for p in points(stream, prompt.kind, settings.k) if p.key == key), None)
        if point is None:
            return replace(said, why=f"not at a point where a critic of kind {prompt.kind} judges")
        if recorded:
            past = tuple(sorted((given[e] for e in extra["history"] if e in given), key=lambda f: f.step))
            own, stream = past, replace(stream, delivered=past)
        made = build(stream, point, own, prompt, settings, ESTIMATE, extra.get("omitted"))
        if not isinstance(made, Request):
            return replace(said, why=_NO_ROOM)
        if recorded and not guided and prompt_hash(made.messages) != (first["usage"] or {}).get("prompt_hash"):
            return replace(said, why="the prompt made again is not the one recorded")
        asked = _asked(stream, point, made, prompt.kind)
        if not said.readable or (said.text and self.settings.target == "raw"):
            return replace(said, asked=asked, why="" if said.text else "nothing was said")
        return self._in_form(replace(said, asked=asked), rows, made, prompt)

    def _wording(self, name: str, recorded: str, guided: bool) -> Prompt | None:
        """The prompt of a recorded request: that of the settings, or the one shipped under its name, if its wording fits."""
        base = name.removesuffix(GUIDED)
        for prompt in (self.prompt, _shipped(base)):
            if prompt is not None and (prompt.name == base if guided else prompt.id == recorded):
                return prompt
        return None

    def _in_form(self, said: Said, rows: Sequence[Row], request: Request, prompt: Prompt) -> Said:
        """The reply in the grammar's canonical form, read from its words, or from the verdicts where it has none."""
        if self.settings.target == "raw":
            return replace(said, why="said without words: set critiques.target to canonical")
        names = taxonomy.load(prompt.taxonomy) if prompt.taxonomy else None
        try:
            if said.text:
                reading = read(prompt.kind, said.text, taxonomy=names, steps=request.steps)
            else:
                reading = _reading(rows, request.steps)
            return replace(said, text=render(prompt.kind, reading, taxonomy=names))
        except (StepwellError, KeyError):
            return replace(said, why=f"cannot be written as {prompt.kind}")


def asker_of(recipe: Recipe) -> Asker | None:
    """The asker that a recipe's dataset wants; None without a dataset."""
    return None if recipe.dataset is None else Asker(recipe.dataset.critiques)


def _replies(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Verdicts of one trajectory, put together where they are one reply: labels of steps, said in one pass."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        verdict, key = row["verdict"], orjson.loads(row["extra"] or "{}").get("key")
        if key is not None:
            cause = row["caused_by"] if verdict["scope"] in ("attempt", "trajectory") else None
            identity: tuple[Any, ...] = (row["policy"], key, verdict["candidate"] or 0, cause)
        elif verdict["scope"] == "step" and verdict["raw"] is None:
            identity = (row["policy"], verdict["candidate"] or 0)
        else:
            identity = (row["event_id"],)
        found.setdefault(identity, []).append(row)
    for group in found.values():
        yield sorted(group, key=lambda r: -1 if r["step"] is None else r["step"])


def _asked(stream: Stream, point: Point, request: Request, kind: str) -> Asked:
    if point.solution is not None:
        last = point.step if point.step is not None else (stream.turns[-1].step if stream.turns else 0)
        return Asked(request.messages, (last,), (str(point.cause),), point.cause)
    events = {turn.step: turn.event_id for turn in stream.turns}
    return Asked(
        request.messages, request.steps, tuple(events[s] for s in request.steps), point.cause, _SHORTENS.get(kind)
    )


def _reading(rows: Sequence[Row], shown: Sequence[int]) -> Reading:
    """What verdicts say, as a reading; texts are put on one line."""
    first = rows[0]["verdict"]
    found = [d for r in rows for d in r["verdict"]["detections"] or () if d["category"]]
    if first["label"] is not None:
        labels = {r["step"]: r["verdict"]["label"] for r in rows}
        if not set(shown) <= labels.keys():
            raise UsageError("a step that is shown has no label; judge the trajectory again.")
        reasons = {r["step"]: _line(r["verdict"]["guidance"] or _evidence(r)) for r in rows}
        return Reading(
            "ok",
            labels={s: labels[s] for s in shown},
            rationales={s: t for s, t in reasons.items() if t and s in shown},
        )
    detections = {
        d["category"]: Detection(d["category"], _line(d["evidence"]) or "found", _line(d["recovery"]) or "-")
        for d in found
    }
    return Reading(
        "ok", severity=first["severity"], detections=tuple(detections.values()), guidance=first["guidance"],
        judgment=first["judgment"], confidence=first["confidence"],
    )  # fmt: skip


def _evidence(row: Row) -> str:
    return "; ".join(d["evidence"] or "" for d in row["verdict"]["detections"] or ())


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


@lru_cache(maxsize=32)
def _shipped(name: str) -> Prompt | None:
    return prompts.load(name) if name in prompts.names() else None


def _of_kind(events: pa.Table, *kinds: str) -> list[Row]:
    kept = events.filter(pc.is_in(events.column("kind"), pa.array(kinds)))
    wanted = [
        "event_id",
        "trajectory_id",
        "step",
        "kind",
        "actor",
        "policy",
        "caused_by",
        "usage",
        "extra",
        "verdict",
        "feedback",
    ]
    return list(kept.select(wanted).to_pylist())


def _hinted(events: pa.Table) -> set[str]:
    """Attempts, by event id, for which a hint was derived."""
    kept = events.filter(pc.is_in(events.column("kind"), pa.array(["attempt", "hint"])))
    rows = kept.select(["event_id", "attempt", "hint"]).to_pylist()
    told = {r["hint"]["attempt_id"] for r in rows if r["hint"]}
    return {r["event_id"] for r in rows if r["attempt"] and r["attempt"]["attempt_id"] in told}
