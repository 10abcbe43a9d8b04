"""Commands about people as critics: annotate export, import, disagreements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import pyarrow.compute as pc
import typer
from rich.table import Table

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, console, emit, open_lake, output, writing
from stepwell.cli.viewing import write_page
from stepwell.critics import annotation, people, rules, taxonomy
from stepwell.display import plain, terminal
from stepwell.errors import UsageError
from stepwell.fold import refresh_table
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.verdicts import holding

CorpusOption = Annotated[list[str] | None, typer.Option("--corpus", help="Only this corpus; may be repeated.")]
_OF_VERDICT = ["event_id", "trajectory_id", "corpus", "step", "kind", "policy", "caused_by", "verdict", "retraction"]
_SHOWN = 50

commands = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(
        commands, name="annotate", help="Have people judge steps, take their labels, see where raters differ."
    )


@commands.command("export")
def export_command(
    out: Annotated[
        Path, typer.Option("--out", help="File to write: .html to judge in a browser, .jsonl for other tools.")
    ],
    corpus: CorpusOption = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Steps to draw.")] = 50,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw.")] = 0,
    by: Annotated[str, typer.Option("--by", help="Strata: label or critic (what --critic said), outcome.")] = "label",
    critic: Annotated[str, typer.Option("--critic", help="Policy whose verdicts make the strata.")] = rules.POLICY,
    show_critic: Annotated[bool, typer.Option("--show-critic", help="Show its verdicts: not blind any more.")] = False,
    before: Annotated[int, typer.Option("--before", min=0, help="Steps shown before.")] = 10,
    after: Annotated[int, typer.Option("--after", min=0, help="Steps shown after.")] = 3,
    terms: Annotated[str, typer.Option("--taxonomy", help="Categories offered.")] = taxonomy.DEFAULT,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Draw steps for a person to judge, with what came before and after, onto one page that needs no server.

    Example: `stepwell annotate export --corpus nightly --n 50 --out judge.html`
    """
    _page_or_lines(out)
    opened = open_lake(lake)
    rows = EventLog(opened).read(corpora=corpus, kinds=["action", "verdict", "retraction"], columns=_OF_VERDICT)
    said = {v["caused_by"]: v for v in holding(rows) if v["policy"] == critic and v["scope"] == "step"}
    kept = live(rows)
    steps = kept.filter(pc.equal(kept.column("kind"), "action")).select(["event_id", "trajectory_id"])
    pairs = steps.to_pylist()
    resolved: dict[str, bool | None] = {}
    if by == "outcome":
        refresh_table(opened, "trajectories")
        graded = opened.read("trajectories", columns=["trajectory_id", "resolved"]).to_pylist()
        resolved = {row["trajectory_id"]: row["resolved"] for row in graded}
    chosen = annotation.sample(pairs, n, seed, by, said, resolved)
    if not chosen:
        raise UsageError(f"no steps in {', '.join(corpus or []) or 'the lake'}; import or roll out trajectories first.")
    says = {e: {critic: said[e]} for e in chosen if show_critic and e in said}
    entries = _items(
        opened, {p["event_id"]: p["trajectory_id"] for p in pairs}, chosen, before=before, after=after, says=says
    )
    _write(out, entries, taxonomy.load(terms))
    if json:
        emit({"out": str(out), "steps": len(entries), "of": len(pairs)})
    else:
        output.print(
            f"{out}: {len(entries)} of {len(pairs)} steps; next: stepwell annotate import LABELS.jsonl", markup=False
        )


@commands.command("show")
def show_command(
    trajectory: Annotated[str, typer.Argument(help="Trajectory id, or the beginning of one.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, .html.")],
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Write one whole trajectory with what every critic and person said of each step: `stepwell view ID --out FILE`.

    Example: `stepwell annotate show 8dbb9193 --out judged.html`
    """
    write_page(open_lake(lake), [trajectory], out, json=json)


@commands.command("import")
def import_command(
    labels: Annotated[Path, typer.Argument(help="File of labels, one JSON object a line, as the page downloads it.")],
    annotator: Annotated[str, typer.Option("--annotator", help="Who judged; becomes the policy human/NAME.")],
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Take a person's labels into the log as verdicts; a changed label supersedes the earlier one.

    Example: `stepwell annotate import labels-ann.jsonl --annotator ann`
    """
    if not labels.is_file():
        raise UsageError(f"no file {str(labels)!r}; give one that exists.")
    known = [taxonomy.load(name) for name in taxonomy.names()]
    taken = people.import_labels(open_lake(lake), labels.read_bytes(), annotator, known, str(labels))
    if json:
        emit({"annotator": annotator, **taken.counts()})
        return
    counts = taken.counts()
    output.print(
        ", ".join(f"{counts[k]} {k}" for k in ("lines", "new", "changed", "known", "rejected")), highlight=False
    )
    for number, reason, detail in taken.rejected[:_SHOWN]:
        console.print(f"line {number}: {reason}: {plain(detail)}", markup=False, highlight=False)


@commands.command("disagreements")
def disagreements_command(
    raters: Annotated[list[str], typer.Option("--with", help="Policy to compare; give two or more.")],
    corpus: CorpusOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the steps side by side: .html or .jsonl.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Show the steps on which people and critics give different labels.

    Example: `stepwell annotate disagreements --with human/ann --with rules@1 --out differ.html`
    """
    if out is not None:
        _page_or_lines(out)
    opened = open_lake(lake)
    rows = EventLog(opened).read(corpora=corpus, kinds=["verdict", "retraction"], columns=_OF_VERDICT)
    found = people.disagreements(holding(rows), raters)
    at = {e: next(iter(by.values())) for e, by in found.steps.items()}
    if out is not None:
        where = {e: v["trajectory_id"] for e, v in at.items()}
        _write(out, _items(opened, where, list(where), says=found.steps), taxonomy.load(), raters)
    listed: list[dict[str, Any]] = [
        {"trajectory_id": at[e]["trajectory_id"], "step": at[e]["step"]}
        | {r: by[r]["label"] for r in raters if r in by}
        for e, by in found.steps.items()
    ]
    if json:
        emit({"shared_steps": found.n_shared, "differing": len(listed), "steps": listed})
        return
    table = Table(
        "trajectory", "step", *map(terminal, raters), title=f"{len(listed)} of {found.n_shared} shared steps differ"
    )
    for entry in listed[:_SHOWN]:
        table.add_row(*(terminal(str(entry.get(c, "-"))) for c in ("trajectory_id", "step", *raters)))
    output.print(table)
    if len(listed) > _SHOWN:
        console.print(f"{_SHOWN} of {len(listed)} shown; --out and --json give all.", highlight=False)


def _page_or_lines(out: Path) -> None:
    if out.suffix not in (".html", ".jsonl"):
        raise UsageError(f"--out {str(out)!r} ends in {out.suffix!r}; allowed: .html, .jsonl. Rename it.")


def _items(lake: Lake, where: dict[str, str], chosen: list[str], **settings: Any) -> list[annotation.Item]:
    ids = sorted({where[e] for e in chosen})
    made = [
        item
        for rows in EventLog(lake).batches(ids, size=100, columns=annotation.COLUMNS)
        for item in annotation.items(rows, chosen, **settings)
    ]
    order = {e: i for i, e in enumerate(chosen)}
    return sorted(made, key=lambda item: order[item.event_id])


def _write(
    out: Path, entries: list[annotation.Item], terms: taxonomy.Taxonomy, raters: list[str] | None = None
) -> None:
    with writing(out):
        if out.suffix == ".html":
            out.write_text(annotation.page(entries, terms, raters or ()), encoding="utf-8")
        else:
            out.write_bytes(b"".join(orjson.dumps(e.as_dict(), default=str) + b"\n" for e in entries))
