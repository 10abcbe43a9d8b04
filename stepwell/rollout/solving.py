"""What a generator of solutions is sent and how its reply is read; the same made again from the log.

Belongs here: the messages that ask for a solution or a revision. Does not belong here: what critics are sent (theirs).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from stepwell.conversation import Message, said
from stepwell.log import live
from stepwell.rollout.problems import Problem

FORM = "Reply with the complete code in one python block."
STREAMS = "The program reads standard input and writes the answer to standard output."
FINALISE = "Revise your answer accordingly. Reply in the same form."
COLUMNS = (
    "event_id", "trajectory_id", "step", "kind", "caused_by", "usage", "instruction", "attempt", "feedback", "retraction",
)  # fmt: skip
"""Columns of `events` that `rebuilt` reads."""
_BLOCK = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)


def block(code: str) -> str:
    """A reply: one python block."""
    return f"```python\n{code.rstrip()}\n```"


def first_prompt(problem: Problem) -> list[Message]:
    """The messages that ask for a first solution."""
    parts = [problem.statement]
    parts += [f"Begin with this:\n{block(problem.starter)}"] if problem.starter not in ("", problem.statement) else []
    parts += [STREAMS] if problem.tests[0].kind == "stdin" else []
    return [{"role": "user", "content": "\n\n".join([*parts, FORM])}]


def revision_prompt(asked: Sequence[Message], code: str, text: str) -> list[Message]:
    """The messages that ask for a revision: the present solution alone, and what is said of it."""
    return [*asked, said(block(code), ()), {"role": "user", "content": text}]


def code_of(reply: str) -> str:
    """The last fenced block of a reply; all of it where there is none."""
    blocks = _BLOCK.findall(reply)
    return str(blocks[-1] if blocks else reply).strip("\n").rstrip()


def rebuilt(events: pa.Table) -> Iterator[tuple[str, list[Message], str | None]]:
    """Events of whole trees in canonical order (COLUMNS) -> (event id, messages, recorded hash) of every attempt.

    `stepwell.chat.prompt_hash` of the messages equals the recorded one for what was recorded here (METHODS.md K12).
    """
    rows = live(events).select(list(COLUMNS)).to_pylist()
    asked: dict[str, list[tuple[int, Message]]] = {}
    for row in rows:
        if (i := row["instruction"]) is not None:
            asked.setdefault(row["trajectory_id"], []).append(
                (i["position"], {"role": i["role"], "content": i["content"]})
            )
    codes = {r["attempt"]["attempt_id"]: r["attempt"]["code"] for r in rows if r["kind"] == "attempt"}
    told = {r["event_id"]: r["feedback"]["text"] for r in rows if r["kind"] == "feedback"}
    for row in rows:
        if row["kind"] == "attempt":
            messages = [m for _, m in sorted(asked.get(row["trajectory_id"], ()), key=lambda pair: pair[0])]
            if row["caused_by"] in told:
                messages = revision_prompt(
                    messages, codes[row["attempt"]["parent_attempt"]] or "", told[row["caused_by"]]
                )
            yield row["event_id"], messages, (row["usage"] or {}).get("prompt_hash")
