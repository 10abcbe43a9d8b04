"""The index of which files hold a trajectory: it never misses a known event, and spares opening the other files."""

from __future__ import annotations

from pathlib import Path

import lakes
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction

from stepwell.holding import INDEX
from stepwell.lake import Lake
from stepwell.log import EventLog


def names(n: int, begin: int = 0) -> list[str]:
    return [f"t-{i}" for i in range(begin, begin + n)]


def filled(lake: Lake, n: int = 10) -> EventLog:
    """A log of as many commits as trajectories, enough of them that the index is on disk."""
    log = EventLog(lake)
    for name in names(n):
        log.append(lakes.good_repair(name), "b")
    assert lake.store.get(INDEX) is not None
    return log


def all_known(lake: Lake, trajectories: list[str]) -> None:
    """Every event is known to a process that begins, and a replay has them all."""
    for name in trajectories:
        log, events = EventLog(lake), lakes.good_repair(name)
        done = log.append(events, "again")
        assert (done.new, done.known) == (0, len(events))
        assert sorted(log.replay(name).column("event_id").to_pylist()) == sorted(e.event_id for e in events)


def test_what_was_appended_is_known(lake: Lake) -> None:
    log = filled(lake)
    assert log.append(lakes.good_repair("t-3"), "again").new == 0
    all_known(lake, names(10))


@pytest.mark.parametrize("damage", ["lost", "cut", "flipped", "empty", "of another lake"])
def test_an_index_that_is_lost_or_damaged_is_made_anew(lake: Lake, tmp_path: Path, damage: str) -> None:
    filled(lake)
    data = lake.store.get(INDEX) or b""
    other = Lake(tmp_path / "other")
    filled(other)
    place = Path(lake.uri) / INDEX
    if damage == "lost":
        place.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        as_it_is = {"cut": data[:-9], "flipped": flipped, "empty": b"", "of another lake": other.store.get(INDEX)}
        place.write_bytes(as_it_is[damage] or b"")
    all_known(lake, names(10))


def test_after_a_compaction_all_is_known(lake: Lake) -> None:
    filled(lake)
    handle = lake.table("events")
    assert handle is not None
    handle.optimize.compact()
    all_known(lake, names(10))


class Compacted(Lake):
    """A lake that somebody compacts while a writer is about to commit."""

    def commit_once(self, handle: DeltaTable, name: str, rows: object, app: str = "stepwell") -> bool:
        other = DeltaTable(self.path(name))
        other.optimize.compact()
        number = Transaction("somebody", other.version())
        other.optimize.compact(commit_properties=CommitProperties(app_transactions=[number]))
        return super().commit_once(handle, name, rows, app)  # type: ignore[arg-type]


def test_files_of_others_are_not_taken_for_ones_own(lake: Lake) -> None:
    filled(lake)
    log = EventLog(Compacted(lake.uri))
    log.append(lakes.good_repair("t-new"), "b")
    for name in [*names(10), "t-new"]:
        assert log.append(lakes.good_repair(name), "again").new == 0
    all_known(lake, [*names(10), "t-new"])


def test_files_without_the_trajectory_are_not_opened(lake: Lake) -> None:
    log = filled(lake)
    for file in (Path(lake.uri) / "events").rglob("*.parquet"):
        if "_delta_log" not in file.parts:
            file.rename(file.with_suffix(".away"))
    events = lakes.good_repair("t-new")
    with pytest.raises(FileNotFoundError):
        log.append(lakes.good_repair("t-3"), "again")
    with pytest.raises(FileNotFoundError):
        log.replay("t-9")
    assert log.append(events, "b").new == len(events), "no old file is needed to see that it is new"
    assert len(log.replay("t-new")) == len(events)
    assert len(log.replay("nobody")) == 0


def test_an_old_version_is_read_as_it_was(lake: Lake) -> None:
    log = filled(lake)
    assert len(EventLog(lake).replay("t-5", 4)) == 0
    assert len(log.replay("t-5", 6)) == len(lakes.good_repair("t-5"))
    assert len(EventLog(lake).read(3, trajectory_ids=["t-0", "t-1", "t-9"])) == 2 * len(lakes.good_repair("t-0"))
