"""SWE-bench predictions, as the official harness takes them: `instance_id`, `model_name_or_path`, `model_patch`.

Held: the submission of one trajectory an instance, in JSON lines or one JSON list; the empty one too, which the harness
counts as such. The harness knows one prediction an instance: of several trajectories of one the first in the order of the
export is written, never the one that did best; choose others by --where. Not held: everything else. Nothing is read back as a
trajectory: an import joins predictions to the trajectories beside them. Left out: trajectories whose task has no name, and
those that are not over or broke off (a model or an environment that failed, an abort).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from schemas.kinds import UNFINISHED
from stepwell.exporters.base import LeftOut, Make, Obj, OpenSink, Options, Trajectory
from stepwell.exporters.writing import JsonLines, JsonList


class SweBench:
    """Writes one prediction an instance."""

    name = "swe-bench"
    reads: Literal["trajectories", "dataset"] = "trajectories"
    kinds = frozenset(("start", "end"))
    holds: Mapping[str, tuple[str, ...]] = {}
    sinks: Mapping[str, OpenSink] = {".jsonl": JsonLines, ".json": JsonList}

    def make(self, options: Options) -> Make:
        """Predictions; remembers the instances that have one."""
        written: set[str] = set()

        def row(trajectory: Trajectory) -> Obj | LeftOut:
            instance = trajectory.facts["task_id"]
            if instance is None:
                return LeftOut("the task has no name")
            if not trajectory.of("end") or trajectory.last("end")["exit_status"] in UNFINISHED:
                return LeftOut("not over")
            if instance in written:
                return LeftOut("another trajectory of an instance that is written")
            written.add(instance)
            start = trajectory.first("start")
            return {
                "instance_id": instance,
                "model_name_or_path": start.get("model") or start.get("agent") or "unknown",
                "model_patch": trajectory.last("end")["submission"] or "",
            }

        return row


EXPORTER = SweBench()
