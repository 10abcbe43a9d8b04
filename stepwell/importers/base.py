"""The contract of an importer: what it is given, what it yields, and how its events are built.

An importer is an object with `name`, `versions`, `capabilities`, `unit` and `read`, found by the registry as `IMPORTER` of its
module. It sees parsed input, never the lake. A field without a column goes into `extra` of the event it belongs to; a value
of the wrong type stays there too. An importer may also have `tells(object) -> str`, why an object is of its format or
nothing; sniffing asks it after its own table, so that a format can be added as one file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

import orjson

from stepwell.event import Event
from stepwell.ids import digest, sha256
from stepwell.importers.messages import Obj, is_call, pack

REASONS: dict[str, str] = {
    "empty": "no bytes, or only white space",
    "lfs_pointer": "a git-LFS pointer in place of the file: run `git lfs pull`",
    "unreadable": "the file cannot be opened, or is not a regular file",
    "too_large": "more bytes than one import reads into memory",
    "not_json": "neither JSON nor JSON lines",
    "unknown_format": "JSON, but of no format known by name",
    "unsupported_format": "a known format for which there is no importer yet",
    "unsupported_version": "a version of a known format that its importer does not read",
    "other_format": "not of the format that was asked for",
    "malformed": "of a known format, but not as that format is written",
    "too_deep": "nested deeper than can be kept as JSON",
    "diverged": "a session that is in the log with other content, and has no more records than is known of it",
    "bad_line": "a line of JSON lines that is no JSON object",
    "bad_archive": "a zip, gzip or Parquet file that cannot be opened, or a member of it that cannot be read",
}
"""Why input is rejected: the closed list, with what each means."""

CAPABILITIES = ("outcome", "step cost", "step tokens", "timestamps", "exact prompts", "tool schemas", "token ids")
"""What a training or analysis method may need, one entry per importer each."""

Unit = Literal["document", "record", "records", "archive"]
"""What `read` is given: `document`, one parsed JSON document (of JSON lines or a list of documents, each in turn); `record`,
one parsed object (a line, an element of a list, a value of a dict of records, a row of Parquet); `records`, the list of all
parsed objects of a file in their order; `archive`, a mapping from member name to its bytes, read when asked for (BadInput
for a member that is too large or cannot be read; names that lead out of the archive are not in it)."""

N_RECORDS = "n_records"
"""Key in `extra` of the end of a trajectory that may grow: how many records its file had."""
_REPO = re.compile(r"([A-Za-z0-9-]+)__([A-Za-z0-9_.-]+?)(?:-\d+|\.[0-9a-f]{8}\..+)")


@dataclass(frozen=True)
class SourceFile:
    """Where a document comes from; `identity` is the sha256 of its content, independent of path and layout.

    It is empty for spans that are received one after the other, of which nobody knows yet what they will be as a whole.
    For unit `record` content is the record, else the file. `key` is the record's key in a dict of records, `around` what
    else stands in an object that wraps a list of records (`{"items": [...], ...}`): both end in `extra` of the first event.
    """

    path: str
    stem: str
    folder: str
    corpus: str
    version: str
    identity: str
    key: str | None = None
    around: Obj = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """One trajectory as events, in the order they happened; `instance_id` is null when the source names no task.

    `n_records` is set where its id stays the same while its file grows: how many records the file has now.
    """

    trajectory_id: str
    corpus: str
    events: list[Event]
    n_steps: int
    instance_id: str | None
    n_records: int | None = None


@dataclass(frozen=True)
class Rejected:
    """One record that could not be taken; `reason` is one of REASONS, `offset` the byte it stands at.

    `raw` is its bytes; null for those of the unit it was met in.
    """

    reason: str
    detail: str
    offset: int = 0
    raw: bytes | None = None


class Importer(Protocol):
    """Reads the documents of one format."""

    @property
    def name(self) -> str:
        """Format name, as `sniff` says it."""

    @property
    def versions(self) -> tuple[str, ...]:
        """Versions of the format it reads."""

    @property
    def unit(self) -> Unit:
        """What `read` is given."""

    @property
    def capabilities(self) -> Mapping[str, str]:
        """CAPABILITIES -> yes, no, or where it is from."""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """One unit of parsed input -> its trajectories, and what of it could not be taken; raises nothing."""


@runtime_checkable
class Telling(Protocol):
    """An importer that knows a mark of its own by which its format is told."""

    def tells(self, record: Obj) -> str:
        """Why an object is of its format; nothing when it is not."""


@runtime_checkable
class Unfinished(Protocol):
    """An importer of documents that are written anew after every step, and say when the run is over."""

    def goes_on(self, record: Obj) -> bool:
        """Whether the run that wrote a document goes on."""


@dataclass
class Builder:
    """Builds the events of one trajectory: the same actors, causes and order for every format."""

    trajectory_id: str
    corpus: str
    agent: str
    place: Obj = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    n_steps: int = 0
    n_records: int | None = None

    @classmethod
    def of(cls, source: SourceFile, family: str, instance_in_content: str | None, agent: str) -> Builder:
        """The id is a digest of format family, instance and content: a copy elsewhere is the same trajectory."""
        place = {
            **({} if source.key is None else {"key": source.key}),
            **({"around": source.around} if source.around else {}),
        }
        return cls(digest(family, instance_in_content, source.identity), source.corpus, agent, place)

    @classmethod
    def of_session(
        cls, source: SourceFile, family: str, session: Any, line: str, n_records: int, agent: str
    ) -> Builder:
        """The id is that of the session and of a line in it, and stays as the file grows; without a session id it does not."""
        if not isinstance(session, str) or not session:
            return cls.of(source, family, line, agent)
        builder = cls.of(replace(source, identity="session"), family, f"{session}/{line}", agent)
        builder.n_records = n_records
        return builder

    def add(
        self,
        kind: str,
        actor: str,
        payload: Obj,
        step: int | None = None,
        policy: str | None = None,
        occurred_at: datetime | None = None,
        caused_by: str | None = None,
        usage: Obj | None = None,
        extra: Obj | str | None = None,
        discriminator: str = "",
    ) -> Event:
        """Append one event; nulls of the payload are left out, an `extra` given as an object is packed."""
        if self.place:
            extra, self.place = {**(orjson.loads(extra) if isinstance(extra, str) else extra or {}), **self.place}, {}
        payload = {k: v for k, v in payload.items() if v is not None}
        told = extra if isinstance(extra, str) else pack(extra)
        event = Event(
            kind, self.trajectory_id, self.corpus, actor, payload, step, policy, occurred_at, caused_by,
            usage, told, discriminator,
        )  # fmt: skip
        self.events.append(event)
        return event

    def task(
        self,
        instance_id: str | None,
        statement: str | None,
        extra: Obj | None = None,
        compared: Obj | None = None,
        **more: Any,
    ) -> None:
        """The task event, with `more` columns of it; none when the source names neither an instance nor a statement.

        `repo`, unless given, follows from ids written `owner__name-number` (SWE-bench) or `owner__name.commit.variant`
        (SWE-smith). Gold patches and hidden tests are given as `solution_hash` and `tests_hash` only, and what
        tasks are `compared` by goes into `extra`.
        """
        if instance_id is None and statement is None and not extra and not any(v is not None for v in more.values()):
            return
        named = _REPO.fullmatch((instance_id or "")[:256])
        self.add(
            "task",
            "system",
            {
                "task_id": instance_id,
                "repo": f"{named[1]}/{named[2]}" if named else None,
                "statement": statement,
                "statement_hash": None if statement is None else sha256(statement),
                **{k: v for k, v in more.items() if v is not None},
            },
            extra={**(extra or {}), **compared} if compared else extra,
        )

    def start(self, payload: Obj, extra: Obj | None = None) -> None:
        """The start event."""
        self.add("start", "system", {"agent": self.agent, **payload}, policy=self.agent, extra=extra)

    def instruction(
        self,
        position: int,
        role: str,
        content: str | None,
        is_demo: bool,
        extra: Obj | None = None,
        tools: str | None = None,
        actor: str = "system",
        **envelope: Any,
    ) -> None:
        """One message the agent was given before it acted; `tools` are schemas offered, as JSON."""
        payload = {"position": position, "role": role, "content": content, "is_demo": is_demo, "tools": tools}
        self.add("instruction", actor, payload, extra=extra, **envelope)

    def action(
        self,
        payload: Obj,
        *,
        usage: Obj,
        policy: str | None,
        extra: Obj,
        calls: Sequence[Any] = (),
        actor: str = "agent",
        occurred_at: datetime | None = None,
        caused_by: str | None = None,
    ) -> Event:
        """The next step's action. What is no tool call among `calls` goes into `extra`."""
        if calls:
            made = [c for c in calls if is_call(c)]
            payload = {**payload, "tool_calls": orjson.dumps(made).decode() if made else None}
            if len(made) < len(calls):
                extra = {**extra, "tool_calls": [c for c in calls if not is_call(c)]}
        used = {k: v for k, v in usage.items() if v is not None} or None
        event = self.add("action", actor, payload, self.n_steps, policy, occurred_at, caused_by, used, extra)
        self.n_steps += 1
        return event

    def observation(
        self,
        action: Event,
        payload: Obj,
        extra: Obj | None = None,
        actor: str = "environment",
        policy: str | None = None,
        occurred_at: datetime | None = None,
    ) -> None:
        """What came back for an action."""
        self.add("observation", actor, payload, action.step, policy, occurred_at, action.event_id, extra=extra)

    def end(self, payload: Obj, extra: Obj, occurred_at: datetime | None = None) -> None:
        """How the trajectory ended."""
        extra = extra if self.n_records is None else {**extra, N_RECORDS: self.n_records}
        self.add("end", "system", payload, policy=self.agent, occurred_at=occurred_at, extra=extra)

    def imported(self, instance_id: str | None) -> Imported:
        """The finished trajectory; ids are computed here, so that what cannot be recorded fails before any write.

        `extra` is no part of an id: of events that are equal but for it, the later ones are told apart by a number.
        """
        met: dict[str, int] = {}
        for place, event in enumerate(self.events):
            met[event.event_id] = n = met.get(event.event_id, 0) + 1
            if n > 1:
                self.events[place] = replace(event, discriminator=f"{event.discriminator}#{n}")
        return Imported(self.trajectory_id, self.corpus, self.events, self.n_steps, instance_id, self.n_records)
