"""Which trajectories a model critic still has to look at, and keeping a second process from looking at the same time.

Belongs here: what changed since a critic was finished. Does not belong here: what is asked about them (`model_critic`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.streams import KINDS
from stepwell.errors import StepwellError
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog


@contextmanager
def alone(path: Path, critic: ModelCritic) -> Iterator[None]:
    """Keep a second process from paying for the same calls."""
    try:
        with FileLock(f"{path}-{digest(critic.id)[:12]}.lock", timeout=0):
            yield
    except Timeout as error:
        raise StepwellError(f"another process is judging with {critic.id}; wait for it, or stop it.") from error


def pending(log: EventLog, version: int, since: int | None, corpora: Sequence[str] | None) -> list[str]:
    """Trajectories of these corpora with something to judge that changed after version `since`, sorted."""
    if since is not None and since > version:
        since = None
    ids = log.changed(since, version, KINDS)
    if corpora is None or not ids:
        return ids
    kinds = ("action", "attempt", "end")
    rows = log.read(version, corpora=corpora, kinds=kinds, columns=["trajectory_id"])
    return sorted(set(ids) & set(rows.column(0).to_pylist()))


def finished_key(lake: Lake, critic: ModelCritic, corpora: Sequence[str] | None) -> str:
    """Identity of 'this critic has judged all of these corpora of this very table'."""
    handle = lake.create("events")
    where = None if corpora is None else sorted(set(corpora))
    return digest(str(handle.metadata().id), critic.identity, critic.settings.__dict__, critic.samples, where)
