"""Events as others send them: one closed shape a kind, made from the declared columns, which checks and describes them.

Belongs here: the shapes, and input turned into events or reasons. Does not belong here: HTTP, keeping what was taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Union

import orjson
import pyarrow as pa
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    TypeAdapter,
    create_model,
)
from pydantic import ValidationError as Invalid

from schemas.column import Column
from schemas.kinds import ACTORS, KINDS
from schemas.payloads import USAGE
from stepwell.errors import StepwellError
from stepwell.event import Event

STEPPED = ("turn", "action", "observation", "label")
"""Kinds that are about one step."""
_CLOSED: dict[tuple[str, str], Any] = {("retraction", "action"): Literal["supersede"]}
"""Columns that take fewer values from outside than from the commands of the lake: a take-down is a command."""
_FORBID = ConfigDict(extra="forbid")
_Id = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{32}$")]
_Text = Annotated[StrictStr, Field(max_length=300)]
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _written(value: Any) -> Any:
    """A time as RFC 3339 writes it. Raises ValueError: numbers and shorter forms are not guessed at."""
    if value is not None and not (isinstance(value, str) and _INSTANT.fullmatch(value)):
        raise ValueError("a time is written as 2026-01-31T12:00:00Z.")
    return value


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 3.0 is an integer. At -2**63 it is an integer beyond 64 bits, which parsers round."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    return int(value) if whole else value


_INT = BeforeValidator(_whole)
_create: Any = create_model
_When = Annotated[AwareDatetime, BeforeValidator(_written)]


def _type(type_: pa.DataType, name: str) -> Any:
    if pa.types.is_list(type_):
        return list[_type(type_.value_type, name)]  # type: ignore[misc]
    if pa.types.is_struct(type_):
        return _model(name, [Column(f.name, f.type, f.metadata[b"comment"].decode()) for f in type_])
    if pa.types.is_integer(type_):
        most = 2 ** (type_.bit_width - 1)
        return Annotated[int, Field(strict=True, ge=-most, le=most - 1), _INT]
    if pa.types.is_floating(type_):
        return Annotated[float, Field(strict=True, allow_inf_nan=False)]
    return {pa.bool_(): StrictBool, pa.string(): StrictStr}[type_]


def _model(name: str, columns: Sequence[Column], kind: str = "") -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for c in columns:
        type_ = _CLOSED.get((kind, c.name)) or _type(c.type, f"{name}{c.name.capitalize()}")
        fields[c.name] = (type_ | None, Field(None, description=c.doc))
    return _create(name, __config__=_FORBID, **fields)  # type: ignore[no-any-return]


class _Envelope(BaseModel):
    model_config = _FORBID

    trajectory_id: Annotated[_Text, Field(pattern=r"^[^\x00-\x1f\x7f]+$")] = Field(
        description="The stream it belongs to, as the sender names it."
    )
    corpus: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")] = Field(
        description="Body of trajectories it belongs to."
    )
    actor: Literal[ACTORS] = Field(description="Role of whoever produced it.")  # type: ignore[valid-type]
    policy: _Text | None = Field(None, description="Which model, rule or person.")
    occurred_at: _When | None = Field(None, description="When it happened, with a time zone.")
    caused_by: _Id | None = Field(None, description="Event id of what it answers, as an answer of this server gave it.")
    extra: dict[str, Any] | None = Field(None, description="What has no column.")
    discriminator: _Text = Field("", description="Tells apart facts that are otherwise equal.")


_Step = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1), _INT]
_USAGE = _model("Usage", USAGE)


def _shape(kind: str) -> Any:
    name, step = kind.capitalize(), "0-based turn; null for facts about the whole trajectory."
    return _create(
        f"{name}Event", __base__=_Envelope, __doc__=KINDS[kind].doc,
        kind=(Literal[kind], Field(description="One of the closed set of kinds.")),
        payload=(_model(name, KINDS[kind].columns, kind), Field(description=KINDS[kind].doc)),
        step=(_Step, Field(description=step)) if kind in STEPPED else (_Step | None, Field(None, description=step)),
        usage=(_USAGE | None, Field(None, description="Tokens, cost and latency of the model call that produced it.")),
    )  # fmt: skip


_ANY: Any = Annotated[Union[tuple(_shape(kind) for kind in KINDS)], Field(discriminator="kind")]  # noqa: UP007
SHAPE: TypeAdapter[Any] = TypeAdapter(_ANY)
"""An event of any kind."""


@dataclass(frozen=True)
class Bad:
    """Input that is no event: its place in the request, why, and its bytes."""

    index: int
    reason: str
    detail: str
    raw: bytes


def lines(body: bytes) -> Iterator[tuple[int, Any, bytes]]:
    """JSON lines -> (index, value or the error, bytes) of each that is not blank."""
    for index, line in enumerate(part for part in body.split(b"\n") if part.strip()):
        try:
            yield index, orjson.loads(line), line
        except orjson.JSONDecodeError as error:
            yield index, error, line


def elements(values: Sequence[Any]) -> Iterator[tuple[int, Any, bytes]]:
    """The elements of a JSON array, likewise."""
    for index, value in enumerate(values):
        yield index, value, orjson.dumps(value)


def events_of(given: Iterator[tuple[int, Any, bytes]]) -> tuple[list[tuple[int, Event]], list[Bad]]:
    """Input -> the events with their places, and what is none."""
    events: list[tuple[int, Event]] = []
    bad: list[Bad] = []
    for index, value, raw in given:
        if isinstance(value, orjson.JSONDecodeError):
            bad.append(Bad(index, "bad_line", f"no JSON: {value}", raw))
            continue
        try:
            events.append((index, _event(SHAPE.validate_python(value))))
        except Invalid as error:
            bad.append(Bad(index, "malformed", _said(error), raw))
        except (StepwellError, ValueError, OverflowError) as error:
            bad.append(Bad(index, "malformed", str(error), raw))
    return events, bad


def _event(told: Any) -> Event:
    when: datetime | None = told.occurred_at
    usage = None if told.usage is None else told.usage.model_dump(exclude_none=True)
    event = Event(
        told.kind, told.trajectory_id, told.corpus, told.actor, told.payload.model_dump(exclude_none=True),
        step=told.step, policy=told.policy, occurred_at=None if when is None else when.astimezone(UTC),
        caused_by=told.caused_by, usage=usage or None, discriminator=told.discriminator,
        extra=orjson.dumps(told.extra, option=orjson.OPT_SORT_KEYS).decode() if told.extra else None,
    )  # fmt: skip
    _ = event.event_id
    return event


def _said(error: Invalid) -> str:
    """What is wrong and where; never the value itself, which may hold a secret."""
    told = [f"{'.'.join(map(str, e['loc'])) or 'event'}: {e['msg']}" for e in error.errors(include_url=False)[:5]]
    return "; ".join(told)[:1000]


_PLAIN = (
    "kind", "trajectory_id", "corpus", "actor", "payload", "step", "policy", "caused_by", "usage", "extra", "discriminator",
)  # fmt: skip


def packed(event: Event) -> dict[str, Any]:
    """An event as the journal keeps it."""
    when = None if event.occurred_at is None else event.occurred_at.isoformat()
    told = {name: getattr(event, name) for name in _PLAIN} | {"occurred_at": when}
    return {k: v for k, v in told.items() if v not in (None, "")}


def unpacked(told: dict[str, Any]) -> Event:
    """The same event again."""
    when = told.pop("occurred_at", None)
    return Event(**told, occurred_at=None if when is None else datetime.fromisoformat(when))
