"""The gate: compare every row of a dataset with every registered suite, store what is flagged, say whether it may pass.

The flags are kept in the table `contamination` under the dataset's content hash, so that what contamination did to a result
can be computed later (`stepwell.contamination.effect`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa

from schemas.contamination import CONTAMINATION
from stepwell.contamination.reading import of_trajectories, suites
from stepwell.contamination.suites import DETECTORS, Hit, Suites
from stepwell.contamination.tasks import Task
from stepwell.errors import LakeError, UnknownName
from stepwell.lake import Lake
from stepwell.recipe import Contamination
from stepwell.seals import seal_of

LOOKED_AT = "looked_at"
_ROWS = ["row_id", "trajectory_id", "task_id", "messages"]
_EXAMPLES = 3


@dataclass(frozen=True)
class Flag:
    """A training row taken for a task of a suite (empty `task_id`: for all of it)."""

    row_id: str
    suite: str
    task_id: str
    detector: str
    score: float
    waived: str | None = None


@dataclass(frozen=True)
class Report:
    """What the gate found: flags by row, the suites compared with their numbers of tasks, and rows no detector could place.

    `bare` counts rows whose trajectory has no task event and no user message: only what the agent wrote was compared.
    `compared` are (suite, task) of every task of the suites.
    """

    dataset: str
    version: int
    dataset_hash: str
    gate: str
    n_rows: int
    bare: int
    suites: dict[str, int]
    flags: tuple[Flag, ...]
    compared: tuple[tuple[str, str], ...] = ()

    @property
    def open(self) -> list[Flag]:
        """Flags that the recipe does not waive."""
        return [f for f in self.flags if f.waived is None]

    def table(self) -> list[dict[str, Any]]:
        """One line a suite and detector that flagged something: rows, tasks, highest score, whether waived, examples."""
        groups: dict[tuple[str, str], list[Flag]] = defaultdict(list)
        for flag in self.flags:
            groups[flag.suite, flag.detector].append(flag)
        return [
            {
                "suite": suite, "detector": detector, "rows": len({f.row_id for f in flags}),
                "tasks": len({f.task_id for f in flags}), "highest": max(f.score for f in flags),
                "waived": flags[0].waived,
                "examples": [f"{f.row_id} = {f.task_id or 'all tasks'}" for f in flags[:_EXAMPLES]],
            }
            for (suite, detector), flags in sorted(groups.items())
        ]  # fmt: skip

    def problems(self) -> list[str]:
        """A sentence a suite and detector whose flags are not waived."""
        return [
            f"{line['detector']} ({DETECTORS[line['detector']]}): {line['rows']} of {self.n_rows} rows repeat {line['tasks']} "
            f"of {self.suites[line['suite']]} tasks of {line['suite']}, as {'; '.join(line['examples'])}. Leave them out by "
            "`source.where`, or name the detector under `contamination.waive` with the reason."
            for line in self.table()
            if line["waived"] is None
        ]

    def as_dict(self) -> dict[str, Any]:
        """The report as one JSON document."""
        names = ("dataset", "version", "dataset_hash", "gate", "n_rows", "bare", "suites")
        flagged = {"flagged_rows": len({f.row_id for f in self.flags}), "open_rows": len({f.row_id for f in self.open})}
        return {name: getattr(self, name) for name in names} | flagged | {"flags": self.table()}


def gate(
    lake: Lake,
    dataset: str,
    settings: Contamination,
    planned: Iterable[Task] = (),
    version: int | None = None,
    store: bool = True,
) -> Report:
    """Compare a dataset (`datasets/<recipe>`) with every suite and keep the flags; the same inputs give the same flags.

    `planned` are tasks of suites that are not in the log yet. Raises LakeError when the dataset does not exist or is not
    sealed, UnknownName for a detector that does not exist.
    """
    for name in [*settings.off, *(w.rpartition("/")[2] for w in settings.waive)]:
        if name not in DETECTORS:
            raise UnknownName("detector", name, DETECTORS, "Named under `contamination` in the recipe.")
    handle = lake.table(dataset, version)
    if handle is None or handle.version() == 0:
        raise LakeError(
            f"no dataset {dataset!r} in {lake.uri}; there are: {', '.join(lake.dataset_names()) or 'none'}. Build it first."
        )
    sealed = seal_of(lake, dataset, handle.version())
    if sealed is None:
        raise LakeError(f"{dataset!r} at version {handle.version()} is not sealed; build it again.")
    seal = sealed[1]
    known = Suites([*suites(lake, settings.against), *planned], settings)
    flags, n_rows, bare = [], 0, 0
    for row_id, hits, placed in _of_rows(lake, dataset, handle.version(), int(seal["events_version"]), known):
        n_rows, bare = n_rows + 1, bare + (not placed)
        flags += _flags(row_id, hits, settings)
    ordered = tuple(sorted(flags, key=lambda f: (f.suite, f.detector, -f.score, f.row_id, f.task_id)))
    report = Report(
        dataset, handle.version(), seal["dataset_hash"], known.hash, n_rows, bare, dict(known.sizes), ordered,
        tuple(sorted({(t.suite, t.task_id) for t in known.tasks if t.task_id})),
    )  # fmt: skip
    if store:
        _store(lake, report)
    return report


def _of_rows(
    lake: Lake, dataset: str, version: int, events_version: int, known: Suites
) -> Iterator[tuple[str, list[Hit], bool]]:
    """(row, hits, whether its task could be compared) of every row, trajectory by trajectory."""
    index = lake.read(dataset, version, ["trajectory_id"]).column(0).unique().to_pylist()
    tasks: dict[str, Task | None] = {}
    once: dict[Task | None, Task | None] = {}  # many trajectories are of one task, whose texts are long
    hits: dict[str, list[Hit]] = {}
    for name, task, code in of_trajectories(lake, sorted(index), events_version):
        tasks[name], hits[name] = once.setdefault(task, task), known.of_code(code) if code else []
    handle = lake.table(dataset, version)
    assert handle is not None
    seen: dict[Task, list[Hit]] = {}
    for batch in lake.dataset(handle).to_batches(columns=_ROWS, batch_size=512):
        for row in batch.to_pylist():
            task, (asked, said) = tasks.get(row["trajectory_id"]), _parts(row["messages"])
            task = task or Task(row["trajectory_id"], row["task_id"])
            task = task if task.statement else replace(task, statement=asked)
            if task not in seen:
                seen[task] = known.of_task(task)
            yield (
                row["row_id"],
                [*seen[task], *hits.get(row["trajectory_id"], ()), *known.of_code(said)],
                bool(task.statement),
            )


def _parts(messages: str) -> tuple[str, list[str]]:
    """What the agent was first asked, and all it said: replies and arguments of tool calls."""
    asked: list[str] = []
    said: list[str] = []
    for message in orjson.loads(messages):
        if message["role"] == "assistant" and not message.get("is_demo"):
            said += [t for t in (message.get("content"), *_arguments(message)) if isinstance(t, str) and t]
        elif message["role"] == "user" and not said and isinstance(message.get("content"), str):
            asked.append(message["content"])
    return "\n\n".join(asked), said


def _arguments(message: dict[str, Any]) -> Iterator[str]:
    """Texts in the arguments of tool calls, such as a file that is written."""
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        given = function.get("arguments") if isinstance(function, dict) else call
        try:
            given = orjson.loads(given) if isinstance(given, str) else given
        except orjson.JSONDecodeError:
            given = {"": given}
        yield from _strings(given)


def _strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys left out."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list):
            stack += reversed(list(one.values()) if isinstance(one, dict) else one)


def _flags(row_id: str, hits: Iterable[Hit], settings: Contamination) -> list[Flag]:
    """One flag a task and detector, the highest score of it."""
    best: dict[tuple[str, str, str], float] = {}
    for hit in hits:
        key = (hit.suite, hit.task.task_id if hit.task else "", hit.detector)
        best[key] = max(best.get(key, 0.0), hit.score)
    return [Flag(row_id, *key, score, _waived(key, settings)) for key, score in best.items()]


def _waived(key: tuple[str, str, str], settings: Contamination) -> str | None:
    suite, _, detector = key
    return settings.waive.get(f"{suite}/{detector}", settings.waive.get(detector))


def _store(lake: Lake, report: Report) -> None:
    looked_at = [Flag("", suite, "", LOOKED_AT, float(n)) for suite, n in report.suites.items()]
    looked_at += [Flag("", suite, task, LOOKED_AT, 1.0) for suite, task in report.compared]
    now = datetime.now(UTC)
    rows = [
        {
            "dataset": report.dataset, "dataset_version": report.version, "dataset_hash": report.dataset_hash,
            "gate": report.gate, "suite": f.suite, "row_id": f.row_id, "task_id": f.task_id, "detector": f.detector,
            "score": f.score, "waived": f.waived, "recorded_at": now,
        }
        for f in (*looked_at, *report.flags)
    ]  # fmt: skip
    if rows:
        lake.add("contamination", pa.Table.from_pylist(rows, CONTAMINATION.schema))
