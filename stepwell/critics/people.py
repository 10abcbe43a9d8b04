"""People as critics: their labels in, verdict events out; and where raters differ.

Belongs here: checking a label against the log, what becomes of it, comparing raters. Does not belong here: what people are
shown (`annotation`), figures of agreement (`audit`). A label is a verdict of actor `human` and policy `human/NAME`. Every
line is either taken or rejected with a reason; a label changed later supersedes the earlier one, as nothing is overwritten.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.kinds import LABELS
from schemas.rejects import REJECTS
from stepwell.critics.annotation import content_hash
from stepwell.critics.taxonomy import Taxonomy
from stepwell.critics.turns import COLUMNS, trajectories
from stepwell.errors import UnknownName, UsageError
from stepwell.event import Event
from stepwell.ids import canonical, digest, sha256, storable
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.verdicts import holding

REASONS: dict[str, str] = {
    "label_malformed": "not a label as the annotation page writes it",
    "label_of_other": "the line names another annotator",
    "label_unknown_step": "no action of that id, trajectory and step is in the log",
    "label_changed_step": "the step is not what it was when it was judged",
    "label_repeated": "a later line of the same file judges the step again",
}
"""Why a line is rejected: the closed list, with what each means."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TEXTS = ("trajectory_id", "event_id", "content_hash", "label")
_MOST = 100_000
Where = dict[str, tuple[str, str, int, str]]


@dataclass
class Taken:
    """What an import of labels did: lines in, and each counted once as new, changed, known or rejected."""

    annotator: str
    n_lines: int = 0
    n_new: int = 0
    n_changed: int = 0
    n_known: int = 0
    rejected: list[tuple[int, str, str]] = field(default_factory=list)
    """(line number from 1, reason, detail)"""

    def counts(self) -> dict[str, Any]:
        """The figures by name; `lines` is the sum of the others, reasons apart."""
        figures = {"lines": self.n_lines, "new": self.n_new, "changed": self.n_changed, "known": self.n_known}
        return figures | {"rejected": len(self.rejected), "reasons": dict(Counter(r for _, r, _ in self.rejected))}


def import_labels(lake: Lake, text: bytes, annotator: str, taxonomies: Sequence[Taxonomy], path: str = "") -> Taken:
    """Take the lines of a labels file into the log; what cannot be taken becomes rows of `rejects`.

    Raises UsageError for a name that cannot be part of a policy.
    """
    if not _NAME.fullmatch(annotator):
        raise UsageError(
            f"annotator {annotator!r} is no name; allowed: 1 to 64 letters, digits, `_`, `.`, `-`. Choose one."
        )
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    taken = Taken(annotator, len(lines))
    read = [(n, line, _read(line, annotator, taxonomies)) for n, line in lines]
    labels = {n: label for n, _, label in read if isinstance(label, dict)}
    log = EventLog(lake)
    ids = sorted({label["trajectory_id"] for label in labels.values()})
    known: Where = {}
    earlier: dict[str, list[dict[str, Any]]] = {}
    live: dict[str, dict[str, Any]] = {}
    for rows in log.batches(ids, columns=[*COLUMNS, "actor", "policy", "verdict"]):
        for trajectory in trajectories(rows):
            for turn in trajectory.turns:
                known[turn.action_id] = (trajectory.trajectory_id, trajectory.corpus, turn.step, content_hash(turn))
        mine = pc.equal(rows.column("policy"), f"human/{annotator}")
        for row in rows.filter(mine).select(["event_id", "kind", "step", "trajectory_id", "verdict"]).to_pylist():
            if row["kind"] == "verdict":
                earlier.setdefault(f"{row['trajectory_id']} {row['step']}", []).append(row)
        live |= {f"{v['trajectory_id']} {v['step']}": v for v in holding(rows) if v["policy"] == f"human/{annotator}"}
    last = {label["event_id"]: n for n, label in labels.items()}
    events: list[Event] = []
    for n, _, label in read:
        why = (
            label
            if isinstance(label, tuple)
            else _unfit(label, known.get(label["event_id"]), last[label["event_id"]] == n)
        )
        if why is not None or isinstance(label, tuple):
            taken.rejected.append((n, *(why or ("label_malformed", ""))))
            continue
        place = f"{label['trajectory_id']} {label['step']}"
        new = _events(label, known[label["event_id"]], annotator, live.get(place), len(earlier.get(place, [])))
        taken.n_known += not new
        taken.n_new += len(new) == 1
        taken.n_changed += len(new) == 2
        events += new
    batch = f"annotate:human/{annotator}:{sha256(text)[:16]}"
    if events:
        log.append(events, batch)
    _keep(lake, taken, dict(lines), path, batch)
    return taken


def _read(line: bytes, annotator: str, taxonomies: Sequence[Taxonomy]) -> dict[str, Any] | tuple[str, str]:
    """A line as a label, or the reason and detail for which it is none."""
    try:
        label = orjson.loads(line) if len(line) <= _MOST else None
    except orjson.JSONDecodeError as error:
        return "label_malformed", f"not JSON: {error}"
    if not isinstance(label, dict) or not all(isinstance(label.get(k), str) for k in _TEXTS):
        return "label_malformed", f"needs texts {', '.join(_TEXTS)} in one JSON object of at most {_MOST:,} bytes"
    step, severity, categories = label.get("step"), label.get("severity"), label.get("categories") or []
    taxonomy = next((t for t in taxonomies if t.id == label.get("taxonomy_id")), None)
    allowed = {c.id for c in taxonomy.categories} if taxonomy else set()
    wrong = []
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**31:
        wrong.append(f"step is {step!r}, must be a whole number from 0")
    if label["label"] not in LABELS:
        wrong.append(f"label is {label['label']!r}, allowed: {', '.join(LABELS)}")
    if severity not in (None, 0, 1, 2) or isinstance(severity, bool | float):
        wrong.append(f"severity is {severity!r}, allowed: 0, 1, 2 or null")
    if categories and taxonomy is None:
        wrong.append(f"taxonomy_id is {label.get('taxonomy_id')!r}, allowed: {', '.join(t.id for t in taxonomies)}")
    elif not isinstance(categories, list) or not set(map(str, categories)) <= allowed:
        wrong.append(f"categories are {categories!r}, allowed: ids of {taxonomy.id if taxonomy else 'a taxonomy'}")
    if not isinstance(label.get("rationale") or "", str):
        wrong.append("rationale is no text")
    when = _time(label.get("labelled_at"))
    if label.get("labelled_at") is not None and when is None:
        wrong.append(f"labelled_at is {label['labelled_at']!r}, must be a date and time with zone in ISO 8601")
    if wrong:
        return "label_malformed", "; ".join(wrong)
    if label.get("annotator") not in (None, "", annotator):
        return "label_of_other", f"{label['annotator']!r} instead of {annotator!r}"
    return label | {"categories": categories, "labelled_at": when, "taxonomy_id": taxonomy.id if taxonomy else None}


def _time(text: Any) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
        return when.astimezone(UTC) if when.tzinfo is not None else None
    except (TypeError, ValueError, OverflowError):
        return None


def _unfit(label: Mapping[str, Any], known: tuple[str, str, int, str] | None, last: bool) -> tuple[str, str] | None:
    if known is None or (known[0], known[2]) != (label["trajectory_id"], label["step"]):
        return (
            "label_unknown_step",
            f"action {label['event_id']!r} at step {label['step']} of {label['trajectory_id']!r}",
        )
    if known[3] != label["content_hash"]:
        return (
            "label_changed_step",
            f"hash {label['content_hash']!r}, in the log {known[3]!r}; export and judge it again",
        )
    return None if last else ("label_repeated", f"action {label['event_id']!r}")


def _events(
    label: Mapping[str, Any],
    at: tuple[str, str, int, str],
    annotator: str,
    old: Mapping[str, Any] | None,
    revision: int,
) -> list[Event]:
    """The verdict, and the retraction of the annotator's earlier one; nothing where it says the same."""
    trajectory, corpus, step, _ = at
    policy = f"human/{annotator}"
    payload = {
        "scope": "step",
        "label": label["label"],
        "severity": label.get("severity"),
        "detections": [{"category": c} for c in label["categories"]],
        "parse_status": "ok",
        "raw": storable(label.get("rationale") or "") or None,
        "taxonomy_id": label["taxonomy_id"],
    }
    if old is not None and canonical({k: old[k] for k in payload}) == canonical(payload):
        return []
    where: dict[str, Any] = {
        "trajectory_id": trajectory,
        "corpus": corpus,
        "actor": "human",
        "policy": policy,
        "step": step,
    }
    # The number tells an opinion returned to apart from the same opinion held, and retracted, before.
    verdict = Event(
        kind="verdict", payload=payload, caused_by=label["event_id"], occurred_at=label["labelled_at"],
        discriminator=str(revision or ""), **where,
    )  # fmt: skip
    if old is None:
        return [verdict]
    change = {"target_event": old["event_id"], "action": "supersede", "replacement": verdict.event_id}
    change |= {"reason": "the annotator changed the label"}
    return [verdict, Event(kind="retraction", payload=change, caused_by=verdict.event_id, **where)]


def _keep(lake: Lake, taken: Taken, lines: Mapping[int, bytes], path: str, batch: str) -> None:
    rows = [
        {
            "reject_id": digest(storable(path), n, reason, sha256(lines[n])), "path": storable(path), "offset": n,
            "reason": reason, "detail": storable(detail), "format": "labels", "raw": lines[n], "batch_id": batch,
            "recorded_at": datetime.now(UTC),
        }
        for n, reason, detail in taken.rejected
    ]  # fmt: skip
    if rows:
        lake.add("rejects", pa.Table.from_pylist(rows, REJECTS.schema))


@dataclass(frozen=True)
class Differing:
    """How raters compare: steps that two of them or more judged, and those they differ on (action -> rater -> verdict)."""

    n_shared: int
    steps: dict[str, dict[str, dict[str, Any]]]


def disagreements(verdicts: Iterable[Mapping[str, Any]], raters: Sequence[str]) -> Differing:
    """Step verdicts that hold -> where the named policies give different labels; an unreadable verdict is its own label.

    Of several candidates of one rater the first counts. Raises UsageError when fewer than two are named or one judged nothing.
    """
    if len(set(raters)) < 2:
        raise UsageError(
            f"{len(set(raters))} raters named with --with; allowed: two or more, such as human/a and rules@1. Name another."
        )
    judged = [v for v in verdicts if v["scope"] == "step" and v["caused_by"]]
    known = sorted({str(v["policy"]) for v in judged})
    if missing := [r for r in raters if r not in known]:
        act = "Name two of these; `stepwell judge` and `stepwell annotate import` add others."
        raise UnknownName("rater of these steps", missing[0], known, act)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for verdict in _first(v for v in judged if v["policy"] in raters):
        found.setdefault(str(verdict["caused_by"]), {}).setdefault(str(verdict["policy"]), dict(verdict))
    shared = {e: {r: by[r] for r in raters if r in by} for e, by in found.items() if len(by) > 1}
    return Differing(len(shared), {e: by for e, by in shared.items() if len({v["label"] for v in by.values()}) > 1})


def _first(verdicts: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return iter(sorted(verdicts, key=lambda v: (v["trajectory_id"], v["step"], v.get("candidate") or 0, v["event_id"])))
