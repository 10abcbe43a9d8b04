"""Prompts from the log alone: the messages a model critic was shown, made again to the byte (METHODS.md K12).

Belongs here: making them again for one verdict, and checking their hashes for many. Does not belong here: how messages
are made (`context`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pyarrow.compute as pc

from stepwell.chat import Message, prompt_hash
from stepwell.critics.context import FORMAT, Request, Settings, build, feedback, key_of, points
from stepwell.critics.prompts import Prompt, load
from stepwell.critics.streams import COLUMNS, ESTIMATE, Feedback, Stream, meeting, streams
from stepwell.errors import StepwellError, UsageError
from stepwell.ids import digest
from stepwell.log import EventLog, live

MOST = 300
"""Verdicts that `reproduced` looks at."""
_OF_VERDICT = ("event_id", "trajectory_id", "step", "kind", "caused_by", "usage", "extra", "verdict", "retraction")


@dataclass(frozen=True)
class Reproduced:
    """What came of making prompts again: `n` verdicts looked at of `of`, and what is wrong with each that is wrong.

    `n` leaves out verdicts under prompts whose files are not here.
    """

    n: int
    of: int
    problems: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(self.problems)


def rerender(log: EventLog, verdict: Mapping[str, Any], prompt: Prompt | None = None) -> tuple[Message, ...]:
    """The messages a model critic was shown for a verdict (a row of the log).

    Their `prompt_hash` equals `usage.prompt_hash`. `prompt` is needed when it is not one of those shipped. Raises
    UsageError for a verdict no model critic made and StepwellError when the prompt's wording is not the recorded one.
    """
    extra = _extra(verdict)
    given = _same(prompt or load(_name(verdict)), verdict, extra)
    return _messages(verdict, extra, given, *_read(log, _version((extra, verdict)), [verdict]))


def reproduced(log: EventLog, most: int = MOST, seed: int = 0) -> Reproduced:
    """Make the prompts of `most` verdicts that hold again, of trajectories in an order drawn by the seed."""
    rows = live(log.read(kinds=["verdict", "retraction"], columns=_OF_VERDICT))
    made = [
        (json.loads(row["extra"]), row)
        for row in rows.filter(
            pc.and_(pc.equal(rows.column("kind"), "verdict"), pc.is_valid(rows.column("extra")))
        ).to_pylist()
    ]
    made = [(extra, row) for extra, row in made if "request" in extra]
    drawn = sorted(made, key=lambda one: (digest("rerender", seed, one[1]["trajectory_id"]), one[1]["event_id"]))[:most]
    n, problems = 0, list[str]()
    for version, group in groupby(sorted(drawn, key=_version), key=_version):
        part = list(group)
        read = _read(log, version, [row for _, row in part])
        for extra, row in part:
            try:
                prompt = _same(load(_name(row)), row, extra)
            except StepwellError:
                continue  # its prompt file is not here
            n += 1
            problems += _wrong(row, extra, prompt, *read)
    return Reproduced(n, len(made), tuple(problems))


def _version(made: tuple[dict[str, Any], Any]) -> int:
    """The version a verdict was made at; -1 where it was made while the trajectory still grew (its point says how far)."""
    version = made[0]["events_version"]
    return -1 if version is None else int(version)


def _wrong(
    row: Mapping[str, Any], extra: dict[str, Any], prompt: Prompt, then: Mapping[str, Stream],
    given: Mapping[str, Feedback],
) -> Iterator[str]:  # fmt: skip
    try:
        found = prompt_hash(_messages(row, extra, prompt, then, given))
    except StepwellError as error:
        yield str(error)
        return
    if found != row["usage"]["prompt_hash"]:
        yield f"verdict {row['event_id']} was asked for with prompt {row['usage']['prompt_hash']}, the log gives {found}"


def _extra(verdict: Mapping[str, Any]) -> dict[str, Any]:
    extra: dict[str, Any] = json.loads(verdict["extra"] or "{}")
    if "request" not in extra:
        raise UsageError(
            f"verdict {verdict['event_id']} records no request; name one that `stepwell judge --prompt` made."
        )
    return extra


def _name(verdict: Mapping[str, Any]) -> str:
    return str(verdict["verdict"]["prompt_id"]).partition("@")[0]


def _same(prompt: Prompt, verdict: Mapping[str, Any], extra: Mapping[str, Any]) -> Prompt:
    """The prompt, when it is the one recorded."""
    recorded, form = verdict["verdict"]["prompt_id"], extra["request"]["format"]
    if prompt.id != recorded or form != FORMAT:
        raise StepwellError(
            f"verdict {verdict['event_id']} was asked for with {recorded} as {form}; here are {prompt.id} and "
            f"{FORMAT}. Give the prompt file of that version, or check out the code that wrote it."
        )
    return prompt


def _read(
    log: EventLog, version: int, verdicts: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Stream], dict[str, Feedback]]:
    """The trajectories of verdicts as they were at a version, and every piece of guidance given in them, by event id."""
    others = (_extra(verdict).get("other") for verdict in verdicts)
    ids = sorted({*(verdict["trajectory_id"] for verdict in verdicts), *filter(None, others)})
    then = streams(log.read(None if version < 0 else version, trajectory_ids=ids, columns=COLUMNS), ESTIMATE)
    given = log.read(trajectory_ids=ids, kinds=["verdict", "feedback"], columns=COLUMNS).to_pylist()
    return {stream.trajectory_id: stream for stream in then}, {row["event_id"]: feedback(row) for row in given}


def _messages(
    verdict: Mapping[str, Any], extra: Mapping[str, Any], prompt: Prompt, then: Mapping[str, Stream],
    given: Mapping[str, Feedback],
) -> tuple[Message, ...]:  # fmt: skip
    settings, stream = Settings(**extra["request"]), then.get(verdict["trajectory_id"])
    if stream is not None and "other" in extra:
        stream = meeting(stream, then.get(extra["other"]), extra["first"], extra["second"])
    key = key_of(prompt.kind, verdict)
    point = next((p for p in points(stream, prompt.kind, settings.k) if p.key == key), None) if stream else None
    if stream is None or point is None:
        raise StepwellError(
            f"what verdict {verdict['event_id']} was about is no longer in the log; it cannot be rebuilt."
        )
    past = tuple(sorted((given[e] for e in extra["history"] if e in given), key=lambda f: f.step))
    built = build(replace(stream, delivered=past), point, past, prompt, settings, ESTIMATE, extra["omitted"])
    assert isinstance(built, Request)
    return built.messages
