"""The closed set of event kinds: what each records, its payload version and its rank inside a step.

A kind is never renamed or removed. A payload changes by raising its version and adding an upcaster (`schemas.upcast`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from schemas import payloads
from schemas.column import Column, struct


@dataclass(frozen=True)
class Kind:
    """One kind of event; `rank` is its place among the events of one step."""

    name: str
    rank: int
    version: int
    doc: str
    columns: Sequence[Column]

    @property
    def type(self) -> pa.DataType:
        """The struct type of the payload column that carries this kind."""
        return struct(self.columns)


_DECLARED: tuple[tuple[str, int, str, Sequence[Column]], ...] = (
    ("task", 1, "A task exists: its statement, repository, tests and hashes.", payloads.TASK),
    ("start", 1, "A trajectory begins: agent, model, scaffold, limits, and what it continues.", payloads.START),
    ("instruction", 1, "A system or user message the agent was given before it acted.", payloads.INSTRUCTION),
    ("notice", 1, "A budget notice was shown to the agent or to the critic.", payloads.NOTICE),
    ("turn", 1, "Who acts in this turn, by which rule and which draw.", payloads.TURN),
    ("action", 1, "What the acting policy said and what of it is executed.", payloads.ACTION),
    ("observation", 2, "What the environment answered: raw and as rendered to the agent.", payloads.OBSERVATION),
    ("label", 1, "The teacher's action for the state the acting policy was in.", payloads.LABEL),
    ("verdict", 1, "A critic, rule or person judged a step, window, trajectory or attempt.", payloads.VERDICT),
    ("feedback", 1, "A critique reached the agent, or did not, and why.", payloads.FEEDBACK),
    ("mask", 1, "The loss weight of a step, decided by a rule on evidence.", payloads.MASK),
    ("attempt", 1, "A solution was submitted in a critique-revision loop.", payloads.ATTEMPT),
    ("hint", 1, "A hint was derived from executing an attempt.", payloads.HINT),
    ("end", 1, "A trajectory ended: exit status, patch, totals.", payloads.END),
    ("outcome", 1, "A grader ran: tests, and whether the task is resolved.", payloads.OUTCOME),
    ("reward", 1, "A reward was assigned within a group.", payloads.REWARD),
    ("retraction", 1, "An earlier event is superseded, redacted or taken down.", payloads.RETRACTION),
)

KINDS: dict[str, Kind] = {
    name: Kind(name, rank, version, doc, columns) for rank, (name, version, doc, columns) in enumerate(_DECLARED)
}
ACTORS: tuple[str, ...] = ("agent", "teacher", "critic", "environment", "grader", "human", "system")
LABELS: tuple[str, ...] = ("good", "unnecessary", "mistake", "recover")
UNFINISHED: tuple[str, ...] = ("aborted", "model_unavailable", "environment_error")
"""Exit statuses that say nothing about the policy: such rollouts are run again, and nothing is learnt from them."""
HELD_OUT = "evaluations/"
"""How the names of corpora begin that hold evaluations: nothing is learnt from them."""
