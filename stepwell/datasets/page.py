"""Rows of a dataset as a page to look at: every token in the colour of what training does with it.

Belongs here: one self-contained HTML file (no script, nothing fetched). Does not belong here: whether a row is right
(`verify`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import pyarrow as pa

from stepwell.errors import RenderError
from stepwell.rendering import IGNORE, Renderer
from stepwell.rendering.pieces import pieces

SAMPLE = 6
"""Rows on a page."""
_INVISIBLE = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\u200b": "·"}
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --line: #d0d7de; --soft: #656d76;
  --trained: #b7ebc2; --masked: #ffd3ad; --context: #f3f4f6; --edge: #8882; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #14181d; --line: #3d444d; --soft: #9aa4af;
  --trained: #1b5e33; --masked: #7a4215; --context: #22272e; --edge: #fff2; } }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
main, header > div { max-width: 72rem; margin: 0 auto; padding: .6rem 1.2rem; }
header { position: sticky; top: 0; background: var(--paper); border-bottom: 1px solid var(--line); }
h1 { font-size: 1.15rem; margin: 0; } h2 { font-size: 1rem; margin: 1.6rem 0 .2rem; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; font-size: .9rem; }
.legend i { font-style: normal; padding: 0 .4rem; }
.facts, dl { color: var(--soft); font-size: .85rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 .8rem; }
dd { margin: 0; font-family: ui-monospace, monospace; }
pre { margin: 0; padding: .6rem .8rem; border: 1px solid var(--line); border-radius: 6px; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.75 ui-monospace, monospace; tab-size: 4; }
pre span { unicode-bidi: isolate; direction: ltr; }
pre span { border-radius: 2px; box-shadow: inset -1px 0 var(--edge); } pre span:hover { outline: 2px solid currentColor; }
.trained { background: var(--trained); } .masked { background: var(--masked); } .context { background: var(--context); }
.special { font-weight: 600; text-decoration: underline dotted; text-underline-offset: 3px; } .mark { opacity: .35; }
.problems { list-style: none; border-left: 4px solid #cf222e; padding-left: .8rem; }
"""
_LEGEND = (
    ("trained", "in the loss"),
    ("masked", "a reply left out of the loss (weight 0)"),
    ("context", "never in the loss"),
)


def page(
    rows: pa.Table, renderer: Renderer, name: str, seal: Mapping[str, str], problems: Sequence[str], most: int = SAMPLE
) -> str:
    """HTML of at most `most` rows of a dataset, spread over it evenly in `row_id` order, rows with problems first.

    `seal` is what was recorded when the dataset was built; `problems` are those `verify` found.
    """
    ordered = rows.sort_by("row_id")
    ids = ordered.column("row_id").to_pylist()
    wrong = {p.removeprefix("row ").partition(":")[0] for p in problems}
    even = [i * len(ids) // max(min(most, len(ids)), 1) for i in range(min(most, len(ids)))]
    picked = list(dict.fromkeys([*(i for i, row in enumerate(ids) if row in wrong), *even]))[:most]
    facts = {"dataset": name, "dataset hash": seal.get("dataset_hash", "not sealed")}
    facts |= {k.replace("_", " "): _agreement(v, seal.get(k)) for k, v in renderer.hashes.items()}
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>Tokens of {escape(name)}</title><style>{_STYLE}</style></head><body><header><div>",
        f"<h1>What {escape(name)} trains</h1><div class='legend'>",
        *(f"<span><i class='{kind}'>{kind}</i> {meaning}</span>" for kind, meaning in _LEGEND),
        "<span><i class='special'>&lt;s&gt;</i> special token</span><span>hover: place, id, text</span></div></div></header>",
        "<main><dl>",
        *(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items()),
        f"</dl><p class='facts'>{len(picked)} of {len(ids)} rows; problems found: {len(problems)}.</p>",
    ]
    if problems:
        told = "".join(f"<li>{escape(p[:500])}</li>" for p in problems[:20])
        parts.append(f"<ul class='problems'>{told}</ul>")
    for row in ordered.take(pa.array(picked, pa.int64())).to_pylist():
        parts += _row(row, renderer)
    return "".join([*parts, "</main></body></html>\n"]).encode("utf-8", "backslashreplace").decode("utf-8")


def _agreement(now: str, then: str | None) -> str:
    """A hash, and the one recorded where they differ."""
    return now if then in (None, now) else f"{now} (the dataset was built with {then})"


def _row(row: Mapping[str, Any], renderer: Renderer) -> Iterator[str]:
    messages = json.loads(row["messages"])
    try:
        spans = renderer.encode(messages, row["weights"]).spans
    except RenderError:
        spans = []  # what `verify` says of it stands at the top; its tokens are shown all the same
    replies = {i for start, end in spans for i in range(start, end)}
    yield f"<h2>row {escape(row['row_id'])}</h2><p class='facts'>"
    yield escape(
        f"{row['method']} · {row['split']} · trajectory {row['trajectory_id']} · {row['n_trained_tokens']} of "
        f"{row['n_tokens']} tokens trained · {row['n_masked_steps']} of {len(row['weights'])} steps masked"
    )
    yield "</p><pre>"
    for first, last, text in pieces(row["input_ids"], renderer):
        ids, labels = row["input_ids"][first:last], row["labels"][first:last]
        special = len(ids) == 1 and ids[0] in renderer.special_ids
        kind = "trained" if any(x != IGNORE for x in labels) else "masked" if first in replies else "context"
        told = f"{first}: {' '.join(map(str, ids))} {text!r}"
        shown = "".join(_shown(c) for c in text)
        yield f"<span class='{kind}{' special' if special else ''}' title='{escape(told)}'>{shown}</span>"
    yield "</pre>"


def _shown(character: str) -> str:
    """A character as HTML; those that cannot be seen have a pale mark."""
    mark = _INVISIBLE.get(character)
    return f"<b class='mark'>{mark}</b>{character}" if mark else escape(character)
