"""The page of exports: what each format holds and what not, written from the exporters themselves.

    python -m stepwell.exporters.page > docs/export.md

Belongs here: turning exporters into Markdown. A test requires the committed page to be what this prints, and another that what
is said to come back does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from stepwell.exporters.base import Exporter
from stepwell.exporters.reading import columns_of
from stepwell.exporters.registry import EXPORTERS

_KINDS = (
    "task",
    "start",
    "instruction",
    "action",
    "usage",
    "observation",
    "end",
    "outcome",
    "verdict",
    "mask",
    "label",
    "feedback",
)
"""What the table has a row for; the other kinds go as these last ones do."""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Export"
    yield ""
    yield "Written by `python -m stepwell.exporters.page > docs/export.md` from the exporters; do not edit."
    yield ""
    yield "    stepwell export atif -o runs/ --corpus nightly --where 'resolved'"
    yield "    stepwell export chat -o sft.parquet --mask-rule 'srft@1(critic=rules@1,mask=mistake,resolved=full)'"
    yield "    stepwell export tokens -o train.jsonl --dataset srft --where \"split = 'train'\""
    yield "    stepwell export hf -o srft-hf --dataset srft"
    yield ""
    yield "What is exported appears under its name when all of it is written, with `NAME.manifest.json` beside: versions,"
    yield "filter, counts, why anything was left out, sha256. The same lake at the same versions gives the same bytes."
    yield "What was retracted is not given out, nor is anything of a trajectory of which something was taken down or"
    yield "redacted since the version asked for. Corpora of evaluations are exported only when they are named. What was"
    yield "redacted at import stays redacted: the log has nothing else."
    yield ""
    yield "| format | made of | written to |"
    yield "|---|---|---|"
    for name, exporter in EXPORTERS.items():
        made_of = "a sealed dataset" if exporter.reads == "dataset" else "trajectories"
        ends = ", ".join(f"`PATH{s}`" if s else "a folder" for s in exporter.sinks)
        yield f"| [{name}](#{'-'.join(_siblings(exporter))}) | {made_of} | {ends} |"
    yield ""
    yield "## What comes back"
    yield ""
    yield "Columns of events that are equal after export and import, by kind; `usage` is that of actions. Ids are new ones."
    back = {n: e for n, e in EXPORTERS.items() if e.holds}
    yield ""
    yield f"| kind | {' | '.join(back)} |"
    yield f"|---|{'---|' * len(back)}"
    for kind in _KINDS:
        yield f"| {kind} | {' | '.join(_cell(e, kind) for e in back.values())} |"
    yield ""
    yield f"Of {', '.join(n for n in EXPORTERS if n not in back)} nothing is read back as a trajectory."
    told = set()
    for exporter in EXPORTERS.values():
        doc = (sys.modules[type(exporter).__module__].__doc__ or "").strip()
        if doc not in told:
            yield ""
            yield f"## {', '.join(_siblings(exporter))}"
            yield ""
            yield doc
        told.add(doc)


def _siblings(exporter: Exporter) -> list[str]:
    """The formats of a module, which share its words."""
    return [name for name, e in EXPORTERS.items() if type(e).__module__ == type(exporter).__module__]


def _cell(exporter: Exporter, kind: str) -> str:
    held = exporter.holds.get(kind, ())
    lost = [c for c in columns_of(kind) if c not in held]
    if not held:
        return "nothing"
    return ", ".join(f"`{c}`" for c in held) if lost else "all"


if __name__ == "__main__":
    sys.stdout.write(page())
