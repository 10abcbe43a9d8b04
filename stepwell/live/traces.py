"""Spans as OpenTelemetry exporters send them, held until their conversations are silent, and read again as they grow.

Belongs here: the two encodings, which requests belong together, the trajectories they make so far. Does not belong here: what
spans mean (`stepwell.importers.otlp`).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from stepwell.errors import BadInput
from stepwell.importers.base import Imported, Rejected, SourceFile
from stepwell.importers.ledger import Held, Ledger, Taken
from stepwell.importers.otlp import IMPORTER
from stepwell.lake import Lake

PATH = "POST /v1/traces"
_IDS = ("traceId", "spanId", "parentSpanId")
_NAMES = ("gen_ai.conversation.id", "session.id")
_MOST_BYTES = 256 << 20
Batch = dict[str, Any]


def of_protobuf(body: bytes) -> Batch:
    """The bytes of an ExportTraceServiceRequest -> the same as OTLP JSON has it. Raises BadInput."""
    try:
        told: Batch = MessageToDict(ExportTraceServiceRequest.FromString(body), use_integers_for_enums=True)
    except DecodeError as error:
        raise BadInput("malformed", f"no ExportTraceServiceRequest: {error}") from error
    for span in spans_of(told):
        for item in (span, *span.get("links", ())):
            item.update({k: base64.b64decode(item[k]).hex() for k in _IDS if k in item})
    return told


def spans_of(batch: Batch) -> Iterator[dict[str, Any]]:
    """Every span of a request; what is not as OTLP writes it is left out."""
    for resource in _objects(batch, "resourceSpans"):
        for scope in _objects(resource, "scopeSpans"):
            yield from _objects(scope, "spans")


def _objects(item: Any, key: str) -> list[dict[str, Any]]:
    found = item.get(key) if isinstance(item, dict) else None
    return [o for o in found if isinstance(o, dict)] if isinstance(found, list) else []


@dataclass
class _Request:
    batch: Batch
    n_bytes: int
    last: float
    marks: frozenset[str]


@dataclass
class _Group:
    last: float
    keys: set[str]
    marks: set[str]


class Traces:
    """The requests whose conversations go on, by their key in the journal."""

    def __init__(self, lake: Lake, corpus: str) -> None:
        self.lake, self.corpus = lake, corpus
        self.source = SourceFile(PATH, "traces", "serve", corpus, "", "")
        self._held: dict[str, _Request] = {}
        self._changed = False

    def __len__(self) -> int:
        return len(self._held)

    def add(self, key: str, batch: Batch, n_bytes: int) -> None:
        """Hold a request."""
        self._held[key] = _Request(batch, n_bytes, time.time(), frozenset(_marks(batch)))
        self._changed = True

    def write(self, batch_id: str) -> int:
        """Bring the trajectories in the lake up to what is held; returns how many events were new."""
        if not self._changed:
            return 0
        self._changed = False
        try:
            return self._read([r.batch for r in list(self._held.values())], batch_id, rejects=False)
        except BaseException:
            self._changed = True
            raise

    def silent(self, idle: float, batch_id: str) -> set[str]:
        """Let go of conversations that were silent for so long, the oldest first also when there are too many bytes.

        Returns the keys of their requests; what of them became no trajectory is in `rejects` then.
        """
        gone: set[str] = set()
        held, limit = list(self._held.values()), time.time() - idle
        total = sum(r.n_bytes for r in held)
        if total <= _MOST_BYTES and all(r.last > limit for r in held):
            return gone
        for last, keys in sorted(self._together()):
            if last > limit and total <= _MOST_BYTES:
                break
            total -= sum(self._held[k].n_bytes for k in keys)
            self._read([self._held[k].batch for k in keys], batch_id, rejects=True)
            gone |= keys
        for key in gone:
            del self._held[key]
        return gone

    def _read(self, batches: list[Batch], batch_id: str, rejects: bool) -> int:
        ledger, raw = Ledger(self.lake, batch_id, 1 << 60), orjson.dumps(batches) if rejects else b""
        taken = Taken("", PATH, IMPORTER.name, 0, growing=not rejects)
        for one in IMPORTER.read(batches, self.source):
            if isinstance(one, Imported):
                ledger.hold(Held(taken, one, [], raw, 0))
            elif isinstance(one, Rejected) and rejects:
                ledger.reject(PATH, one, one.raw or raw, IMPORTER.name)
        ledger.flush()
        return ledger.n_new

    def _together(self) -> list[tuple[float, set[str]]]:
        """Requests that share a trace or a conversation, and when the last of them came."""
        groups: dict[str, _Group] = {}
        for key, request in list(self._held.items()):
            mine = _Group(request.last, {key}, set())
            for mark in request.marks or {key}:
                other = groups.setdefault(mark, mine)
                mine.marks.add(mark)
                if other is not mine:
                    less, mine = sorted((mine, other), key=lambda g: len(g.keys) + len(g.marks))
                    mine.last = max(mine.last, less.last)
                    mine.keys |= less.keys
                    mine.marks |= less.marks
                    groups.update(dict.fromkeys(less.marks, mine))
        return [(g.last, g.keys) for g in {id(g): g for g in groups.values()}.values()]


def _marks(batch: Batch) -> Iterator[str]:
    for span in spans_of(batch):
        yield f"trace {span.get('traceId')}"
        for pair in _objects(span, "attributes"):
            if pair.get("key") in _NAMES:
                yield f"conversation {pair.get('value')}"
