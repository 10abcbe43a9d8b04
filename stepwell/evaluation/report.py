"""A comparison as a document: JSON, markdown, and one self-contained HTML page (no script, nothing fetched, light and dark).

Belongs here: what stands where on a page. Does not belong here: cells (`tables`), plots (`charts`), figures (`compare`).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import orjson

from stepwell.bootstrap import Figure
from stepwell.errors import UsageError
from stepwell.evaluation import charts
from stepwell.evaluation.claims import percent
from stepwell.evaluation.compare import Comparison
from stepwell.evaluation.tables import gap, share, sheets
from stepwell.sheets import Sheet, cell

KINDS = (".md", ".html", ".json")
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --line: #d0d7de; --soft: #656d76; --shade: #f3f4f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #14181d; --line: #3d444d; --soft: #9aa4af;
  --shade: #22272e; } }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
main { max-width: 86rem; margin: 0 auto; padding: 1rem 1.2rem 3rem; }
h1 { font-size: 1.3rem; margin: .5rem 0; } h2 { font-size: 1rem; margin: 2rem 0 .4rem; }
.facts, .note { color: var(--soft); font-size: .85rem; margin: .2rem 0; overflow-wrap: anywhere; }
.said { border-left: 4px solid var(--line); padding: .2rem .8rem; margin: .6rem 0; max-width: 60rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { background: var(--shade); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
svg { width: 100%; max-width: 760px; height: auto; display: block; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(36rem, 100%), 1fr)); gap: 0 1.5rem; }
.plots h2 { margin-bottom: 0; }
"""


def document(c: Comparison) -> dict[str, Any]:
    """The comparison as plain values, sentences included."""
    plain = asdict(c)
    for told, pair in zip(plain["pairs"], c.pairs, strict=True):
        told["sentence"] = pair.sentence
    for arm in plain["arms"]:
        for spent in arm["spent"].values():
            spent["policies"] = sorted(spent["policies"])
    return plain


def plots(c: Comparison) -> list[tuple[str, str]]:
    """Title and SVG of the differences, of the arms, and of what they cost against what they resolve."""
    bars = []
    for p in c.pairs:
        d = p.difference
        low, high = (p.crossed.low, p.crossed.high) if p.crossed else (None, None)
        wide = None if low is None or high is None else (100 * low, 100 * high)
        ends = _ends(d, 100)
        bars.append(charts.Bar(f"{p.b} - {p.a}", *ends, wide, f"{gap(d)} p={p.p_adjusted:.3f}"))
    arms = [charts.Bar(a.name, *_ends(a.figures["resolved"], 100), None, share(a.figures["resolved"])) for a in c.arms]
    points = [
        charts.Point(a.name, _ends(a.figures[_price(c)[0]], 1), _ends(a.figures["resolved"], 100)) for a in c.arms
    ]
    return [
        ("Differences in resolve rate", charts.forest(bars, "points [95%]; wide: over tasks and seeds; p after Holm")),
        ("Resolve rates", charts.forest(arms, "% resolved [95%]", zero=False)),
        ("Cost and accuracy", charts.scatter(points, _price(c)[1], "% resolved")),
    ]


def _price(c: Comparison) -> tuple[str, str]:
    """What stands for cost: dollars where they are known, else prompt tokens, else steps."""
    if c.no_costs is None:
        return "usd_per_task", "US dollars a task"
    if any(a.figures["tokens_in"].value for a in c.arms):
        return "tokens_in", "prompt tokens a task (no costs are known)"
    return "steps", "steps a task (no costs are known)"


def _ends(f: Figure, scale: float) -> tuple[float, float, float]:
    value = f.value or 0.0
    low, high = (value if x is None else x for x in (f.low, f.high))
    return scale * value, scale * low, scale * high


def markdown(c: Comparison) -> str:
    """The report as markdown, plots as data URIs."""
    lines = [f"# {cell(_title(c))}", "", cell(_facts(c)), ""]
    for p in c.pairs:
        lines += [f"> {cell(p.sentence)}", ""]
    lines += [*(f"- {cell(n)}" for n in c.notes), ""]
    for title, svg in plots(c):
        lines += [f"![{title}]({picture(svg)})", ""]
    lines += [sheet.markdown("## {}") + "\n" for sheet in sheets(c)]
    return "\n".join(lines)


def picture(svg: str) -> str:
    """A plot as a data URI."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def html(c: Comparison) -> str:
    """The report as one page; whatever comes from outside is escaped."""
    title = escape(_title(c))
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main><h1>{title}</h1>",
        f"<p class='facts'>{escape(_facts(c))}</p>",
        *(f"<p class='said'>{escape(p.sentence)}</p>" for p in c.pairs),
        *(f"<p class='note'>{escape(n)}</p>" for n in c.notes),
        "<div class='plots'>", *(f"<section><h2>{escape(t)}</h2>{svg}</section>" for t, svg in plots(c)), "</div>",
        *map(_section, sheets(c)),
        "</main></body></html>",
    ]  # fmt: skip
    return "".join(parts)


def _section(sheet: Sheet) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in sheet.rows)
    note = f"<p class='note'>{escape(sheet.note)}</p>" if sheet.note else ""
    table = f"<div class='wide'><table><thead>{row(sheet.headings, 'th')}</thead><tbody>{body}</tbody></table></div>"
    return f"<section><h2>{escape(sheet.title)}</h2>{table}{note}</section>"


def write(c: Comparison, path: Path) -> None:
    """Write the report in the format of the file's name; raises UsageError for another."""
    made = {".md": markdown, ".html": html}.get(path.suffix)
    if made is None and path.suffix != ".json":
        raise UsageError(f"report {path.name!r}; its name must end in one of {', '.join(KINDS)}.")
    text = made(c) if made else orjson.dumps(document(c), option=orjson.OPT_INDENT_2, default=str).decode()
    path.write_text(text, encoding="utf-8")


def _title(c: Comparison) -> str:
    return f"{', '.join(a.name for a in c.arms)} on {c.suite}"


def _facts(c: Comparison) -> str:
    policy = c.price_policy or "none"
    masked = [f"{a.name} {percent(a.masked_share)}" for a in c.arms if a.masked_share is not None]
    steps = f"; steps masked in training: {', '.join(masked)}" if masked else ""
    return f"{c.n_tasks} tasks, the same for every arm (set {c.task_set[:12]}); price policy: {policy}{steps}"
