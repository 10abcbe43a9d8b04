"""Where tasks come from: evaluation corpora of the log, other corpora, files of tasks, and the trajectories of a dataset."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.kinds import HELD_OUT
from stepwell.affected import readable
from stepwell.contamination.tasks import Task, of_event, of_record
from stepwell.errors import UnknownName, UsageError
from stepwell.lake import Lake
from stepwell.log import EventLog, live

_COLUMNS = ["event_id", "trajectory_id", "corpus", "kind", "extra", "task", "attempt", "end", "retraction"]
_AT_ONCE = 2000
_FILES = (".jsonl", ".json", ".gz", ".parquet")


def suites(lake: Lake, against: Sequence[str] = (), version: int | None = None) -> Iterator[Task]:
    """Tasks of every corpus under `evaluations/`, and of `against`: corpora of the log, or files of tasks (JSON lines, also
    gzipped, a JSON list, Parquet).

    Raises UnknownName for what is neither, UsageError for a file that cannot be read or holds no task, and for two suites of
    one name.
    """
    corpora = sorted(set(lake.read("events", version, ["corpus"]).column(0).unique().to_pylist()))
    held_out = [c for c in corpora if c.startswith(HELD_OUT)]
    files = [name for name in against if name not in corpora]
    lost = next((f for f in files if not Path(f).is_file()), None)
    if lost is not None:
        allowed = [*corpora, *(f"a file ending in {f}" for f in _FILES)]
        raise UnknownName("suite", lost, allowed, "Import it, or name a file of tasks.")
    wanted = sorted({*held_out, *(name for name in against if name in corpora)})
    once: dict[str, str] = {}
    for file in files:
        name = _suite(file)
        other = once.setdefault(name, file)
        if name in wanted or not Path(other).samefile(file):
            told = f"{name if name in wanted else other!r} and {file!r}"
            raise UsageError(f"suites {told} are both named {name!r}; allowed: one suite of a name. Rename the file.")
    if wanted:
        rows = live(
            EventLog(lake).read(
                version, corpora=wanted, kinds=["task", "retraction"], columns=_COLUMNS[:6] + _COLUMNS[-1:]
            )
        )
        for row in rows.filter(pc.equal(rows.column("kind"), "task")).to_pylist():
            yield of_event(row["task"], row["extra"], row["corpus"])
    for file in once.values():
        yield from of_file(file)


def _suite(file: str | Path) -> str:
    return Path(file).name.split(".")[0]


def of_file(path: str | Path) -> Iterator[Task]:
    """The tasks of a file, its name without endings being the suite's; raises UsageError as `suites` does.

    A task without an id is `#` and the number of its record, the first of equal ones.
    """
    file = Path(path)
    suite, n = _suite(file), 0
    first: dict[Task, int] = {}
    for number, record in enumerate(_records(file), 1):
        task = of_record(record, suite)
        if task is not None:
            n += 1
            yield task if task.task_id else replace(task, task_id=f"#{first.setdefault(task, number)}")
    if not n:
        raise UsageError(
            f"{str(path)!r} holds no task: none of its records has a statement or an id. See docs/contamination.md."
        )


def of_trajectories(
    lake: Lake, ids: Sequence[str], version: int | None
) -> Iterator[tuple[str, Task | None, list[str]]]:
    """(trajectory, its task, the code it submitted: attempts and patches) of these trajectories, in the order of their ids.

    A trajectory whose source names no task has None. Read at the current version where a redaction erased this one.
    """
    version = readable(lake, "events", version)
    log, kinds = EventLog(lake), ["task", "attempt", "end", "retraction"]
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        tasks: dict[str, Task | None] = dict.fromkeys(some)
        code: dict[str, list[str]] = {name: [] for name in some}
        for row in live(log.read(version, trajectory_ids=some, kinds=kinds, columns=_COLUMNS)).to_pylist():
            name = row["trajectory_id"]
            if row["kind"] == "task" and tasks[name] is None:
                tasks[name] = of_event(row["task"], row["extra"], row["corpus"])
            said = row["attempt"] and row["attempt"]["code"], row["end"] and row["end"]["submission"]
            code[name] += [text for text in said if text]
        yield from ((name, task, code[name]) for name, task in tasks.items())


def _records(file: Path) -> Iterator[dict[str, Any]]:
    try:
        if file.suffix == ".parquet":
            with pq.ParquetFile(file) as table:
                for batch in table.iter_batches(batch_size=256):
                    yield from (orjson.loads(orjson.dumps(row, default=_text)) for row in batch.to_pylist())
            return
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        rows = (
            orjson.loads(data)
            if data.lstrip()[:1] == b"["
            else [orjson.loads(x) for x in data.splitlines() if x.strip()]
        )
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        raise UsageError(
            f"suite {str(file)!r} cannot be read: {error}. Name JSON lines, a JSON list or Parquet."
        ) from error
    yield from (row for row in rows if isinstance(row, dict))


def _text(value: Any) -> str:
    """A value of Parquet that JSON has not: bytes, decimals."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
