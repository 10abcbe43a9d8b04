"""What must hold of an import, whatever the bytes: nothing raises, nothing is lost in silence, every count adds up.

`check` reads one file as an import does, up to the events; `check_import` imports a folder into a real lake and compares what
it wrote with what it was given. Both raise Broken with the name of the property that does not hold.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from test_import_contract import MARK, missing, sealed, seals, texts_of

from stepwell.errors import BadInput
from stepwell.event import Event, to_table
from stepwell.fold import refresh
from stepwell.importers.base import REASONS, Imported, Rejected, SourceFile
from stepwell.importers.containers import open_blob
from stepwell.importers.fidelity import Fidelity
from stepwell.importers.files import Bytes
from stepwell.importers.messages import is_call
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.run import import_paths
from stepwell.importers.units import Read, units
from stepwell.lake import Lake

SLOW = 10.0
"""Seconds of processor time after which an input is a hang."""
_RAISED = re.compile(r"[A-Z]\w*(?:Error|Exception|Iteration|Exit|Interrupt|Warning): ")
"""How `units` writes down what an importer raised, which `read` of an importer never does."""


class Broken(AssertionError):
    """A property does not hold; `name` says which, the message what was met."""

    def __init__(self, name: str, met: object) -> None:
        super().__init__(f"{name}: {met}")
        self.name = name


def _hold(name: str, holds: bool, met: object = "") -> None:
    if not holds:
        raise Broken(name, met)


def check(data: bytes, format: str | None = None) -> str:
    """One file, read as the format it is or as `format` -> the format it was read as, or the reason why it was not."""
    begun = time.process_time()
    try:
        opened = open_blob(Bytes(data))
    except BadInput as error:
        _reason(Rejected(error.reason, error.detail, error.offset))
        return error.reason
    name = format or opened.told.format
    if name not in IMPORTERS:
        return "unknown_format"
    version = opened.told.version if format is None else IMPORTERS[name].versions[0]
    source = SourceFile("trajs/acme__anvil-7", "acme__anvil-7", "trajs", "c", version, "identity")
    fidelity, events = Fidelity(), list[Event]()
    with seals() as keys:
        try:
            for unit in units(opened, IMPORTERS[name], source):
                _unit(name, unit, keys)
                fidelity.records, fidelity.taken = fidelity.records + unit.n, fidelity.taken + unit.n_taken
                fidelity.rejected += unit.n_rejected
                fidelity.read(unit.data)
                for one in unit.imported:
                    fidelity.kept(one.events)
                    events += one.events
        except BadInput as error:
            _reason(Rejected(error.reason, error.detail, error.offset))
    _hold("fidelity adds up", fidelity.records == fidelity.taken + fidelity.rejected, fidelity.row())
    orjson.dumps(fidelity.row())
    to_table(events, "b", datetime.now(UTC))
    took = time.process_time() - begun
    _hold("no hang", took < SLOW, f"{took:.1f} s for {len(data)} bytes")
    return name


def _unit(name: str, unit: Read, keys: set[str]) -> None:
    _hold("a unit is taken or rejected", bool(unit.imported or unit.rejected))
    _hold("records are counted once", 0 <= unit.n_rejected <= unit.n and unit.n > 0, (unit.n, unit.n_rejected))
    _hold("what is taken is in a trajectory", bool(unit.imported) or unit.n_taken == 0, unit.rejected)
    _hold("what is rejected says why", bool(unit.rejected) or unit.n_rejected == 0, unit.n_rejected)
    for rejected in unit.rejected:
        _reason(rejected)
    for one in unit.imported:
        _trajectory(one)
    _hold("trajectories differ", len({t.trajectory_id for t in unit.imported}) == len(unit.imported))
    if unit.data is not None and not unit.rejected:
        _nothing_lost(name, unit, keys)


def _reason(rejected: Rejected) -> None:
    _hold("a reason of the list", rejected.reason in REASONS, rejected.reason)
    _hold("a reject is explained", bool(rejected.detail.strip()), rejected.reason)
    _hold("importers raise nothing", not _RAISED.match(rejected.detail), rejected.detail)
    _hold("an offset is one", type(rejected.offset) is int and rejected.offset >= 0, rejected.offset)


def _trajectory(one: Imported) -> None:
    """What the log and its folds rely on."""
    of: dict[str, list[Event]] = {}
    for event in one.events:
        of.setdefault(event.kind, []).append(event)
    actions, observations = of.get("action", []), of.get("observation", [])
    _hold("a trajectory has events", bool(one.events))
    _hold("events are of their trajectory", {e.trajectory_id for e in one.events} == {one.trajectory_id})
    _hold("steps are counted up", [a.step for a in actions] == list(range(len(actions))), [a.step for a in actions])
    _hold("n_steps is that of the actions", len(actions) in (0, one.n_steps), (len(actions), one.n_steps))
    _hold("event ids differ", len({e.event_id for e in one.events}) == len(one.events))
    _hold("observations answer actions", {o.caused_by for o in observations} <= {a.event_id for a in actions})
    places = [(o.step, o.payload["position"]) for o in observations]
    _hold("places of observations differ", len(set(places)) == len(places), places)
    positions = [e.payload["position"] for e in of.get("instruction", [])]
    _hold("places of instructions differ", len(set(positions)) == len(positions), positions)
    _hold("at most one start and end", len(of.get("start", [])) <= 1 and len(of.get("end", [])) <= 1)
    for event in one.events:
        _hold("extra is an object", event.extra is None or isinstance(json.loads(event.extra), dict), event.extra)
    for action in actions:
        calls = json.loads(action.payload.get("tool_calls") or "[]")
        _hold("calls are in chat shape", all(map(is_call, calls)), calls)


def _nothing_lost(name: str, unit: Read, keys: set[str]) -> None:
    """A marked value stands in an event, unless it is sealed there."""
    data = unit.data
    if name == "swe-agent" and isinstance(data, dict) and isinstance(data.get("trajectory"), list):
        steps = [  # prompts are kept as what differs from the history
            {k: v for k, v in s.items() if k not in ("messages", "query")} if isinstance(s, dict) else s
            for s in data["trajectory"]
        ]
        data = {**data, "trajectory": steps}
    if MARK in set(texts_of(data)) and MARK not in set(texts_of(list(sealed(data, keys)))):
        _hold("a value is kept", MARK not in missing(data, [e for one in unit.imported for e in one.events]), name)


def check_import(files: dict[str, bytes], keep_secrets: bool) -> None:
    """Files by name, imported twice into a new lake: every one is accounted for, and the second time nothing is new."""
    with tempfile.TemporaryDirectory(prefix="stepwell-fuzz-") as place:
        folder, lake = Path(place) / "in", Lake(Path(place) / "lake")
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        first = import_paths(lake, [folder], keep_secrets=keep_secrets)
        parts = first.imported + first.known + first.rejected + first.outcome + first.ignored
        _hold("every file is counted", first.files == parts == len(files), first.counts())
        _hold("every record is counted", first.records == first.taken + first.rejected_records, first.counts())
        rejects, sources = lake.read("rejects").to_pylist(), lake.read("sources").to_pylist()
        _hold("no reject is dropped", len(rejects) <= sum(first.reasons.values()), (len(rejects), first.reasons))
        _hold("every reason has its row", {r["reason"] for r in rejects} == set(first.reasons), first.reasons)
        _hold("rejects are whole", *_whole(rejects, files, keep_secrets))
        of_data = {str(folder / n) for n in files if not n.endswith(".txt")}
        told = {s["path"] for s in sources} | {r["path"] for r in rejects}
        _hold("every file leaves a row", of_data <= told, of_data - told)
        stored = set(lake.read("events", columns=["trajectory_id"]).column(0).to_pylist()) if first.events else set()
        for source in sources:
            _hold("sources name what is in the log", {*source["trajectory_ids"]} <= stored, source["path"])
            counts = orjson.loads(source["fidelity"] or '{"records":0,"taken":0,"rejected":0}')
            adds_up = counts["records"] == counts["taken"] + counts["rejected"] == (source["n_records"] or 0)
            _hold("fidelity adds up", adds_up, (source["path"], counts))
        refresh(lake)
        again = import_paths(lake, [folder], keep_secrets=keep_secrets)
        _hold("the second import writes no event", again.events == 0, again.counts())
        for reasons in (first.reasons, again.reasons):
            reasons.pop("diverged", None)  # of several states of a session, which were read before makes a difference
        _hold("the second import rejects the same", again.reasons == first.reasons, (again.reasons, first.reasons))


def _whole(rejects: Iterable[dict[str, Any]], files: dict[str, bytes], keep_secrets: bool) -> tuple[bool, object]:
    """Whether every reject has its reason, its source and its bytes, which may be those of the file, kept once."""
    rows = list(rejects)
    kept = {row["path"] for row in rows if row["raw"] == files[Path(row["path"]).name]}
    for row in rows:
        data = files[Path(row["path"]).name]
        packed = data[:2] in (b"\x1f\x8b", b"PA") or not keep_secrets
        ours = row["raw"] in data or packed or _parses(row["raw"])
        if (
            row["reason"] not in REASONS
            or not row["detail"]
            or not (row["raw"] or row["path"] in kept or not data)
            or not ours
        ):
            return False, {**row, "raw": row["raw"][:200]}
    return True, ""


def _parses(raw: bytes) -> bool:
    """Whether the raw of a reject is a record of a list, which is written down as parsed."""
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return True
