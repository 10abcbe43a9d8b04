"""Commands that take out of a lake what must not be in it: redact, takedown."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, bring_up, console, emit, open_lake, output
from stepwell.errors import StepwellError, UsageError
from stepwell.lake import Lake
from stepwell.redaction.finding import known_events, matching, taken_down
from stepwell.redaction.report import Report
from stepwell.redaction.run import redact
from stepwell.redaction.scan import scan
from stepwell.redaction.target import Target
from stepwell.secrets.values import checked, of_file

Values = Annotated[list[str] | None, typer.Option("--value", help="A value to take out, in every form.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the log.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("redact")(redact_command)
    app.command("takedown")(takedown_command)


def redact_command(
    value: Values = None,
    values: Annotated[
        str | None, typer.Option("--values", help="File of values, one a line; NAME=value in *.env.")
    ] = None,
    pattern: Annotated[str | None, typer.Option("--pattern", help="Regular expression: what it matches goes.")] = None,
    event: Annotated[list[str] | None, typer.Option("--event", help="Event whose whole text goes.")] = None,
    prove: Annotated[
        list[str] | None, typer.Option("--prove", help="Change nothing; scan every byte for this value.")
    ] = None,
    reason: Reason = "secret",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which files hold it.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Take values or the text of events out of every file of the lake, then scan every byte of it for them.

    Values on a command line are seen by other users of the machine: prefer --values. Killed half-way, run it again.

    Example: `stepwell redact --values leaked.txt`
    """
    opened = open_lake(lake)
    asked = [*(value or ()), *(of_file(values) if values else ()), *(prove or ())]
    if pattern is not None:
        asked += matching(opened, _compiled(pattern))
    if not asked and not event:
        nothing = f"pattern {pattern!r} matches nothing" if pattern is not None else "nothing to redact"
        raise UsageError(f"{nothing}; give --value, --values, --pattern, --event or --prove.")
    target = Target(tuple(sorted(checked(asked))), known_events(opened, event or ()))
    if prove or dry_run:
        _scanned(opened, target, json)
    else:
        _run(opened, target, reason, json)


def takedown_command(
    trajectory: Annotated[list[str] | None, typer.Option("--trajectory", help="Trajectory id.")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Every trajectory of a task.")] = None,
    repo: Annotated[list[str] | None, typer.Option("--repo", help="Every trajectory of a repository.")] = None,
    source: Annotated[list[str] | None, typer.Option("--source", help="Every trajectory of an imported file.")] = None,
    corpus: Annotated[list[str] | None, typer.Option("--corpus", help="Every trajectory of a corpus.")] = None,
    reason: Reason = "takedown",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which trajectories.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Take whole trajectories out of every file of the lake, those that continue them included; they do not come back.

    Example: `stepwell takedown --repo owner/name --reason "asked by the owner"`
    """
    opened = open_lake(lake)
    bring_up(opened)
    asked = {"trajectory_id": trajectory, "task_id": task, "repo": repo, "corpus": corpus, "source": source}
    if not any(asked.values()):
        raise UsageError(
            f"nothing to take down; give one of: {', '.join('--' + k.removesuffix('_id') for k in asked)}."
        )
    down = taken_down(opened, {k: v for k, v in asked.items() if v})
    if dry_run:
        emit({"trajectories": sorted(down)}) if json else output.print("\n".join(sorted(down)), markup=False)
        return
    _run(opened, Target(down=frozenset(down)), reason, json)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is no regular expression: {error}; correct it.") from error


def _scanned(lake: Lake, target: Target, json: bool) -> None:
    n = len(lake.store.paths())
    hits = [f"{hit.path}: {hit.how}" for hit in scan(lake, target)]
    if json:
        emit({"files": n, "found": hits})
    else:
        output.print(*hits, f"{len(hits)} of {n} files", sep="\n", markup=False, highlight=False, soft_wrap=True)
    if hits:
        raise StepwellError(f"{len(hits)} of {n} files hold a value or cannot be read; take it out: stepwell redact.")


def _run(lake: Lake, target: Target, reason: str, json: bool) -> None:
    report = redact(lake, target, reason, lambda text: console.print(text, markup=False, highlight=False))
    if json:
        emit(report)
    else:
        output.print(*_lines(report), sep="\n", markup=False, highlight=False, soft_wrap=True)
    if report.left:
        raise StepwellError(
            f"not all is gone: {'; '.join(report.left[:10])}. Clean or delete these files by hand, then run this again."
        )


def _lines(report: Report) -> list[str]:
    lines = [
        f"redaction {report.name}: {len(report.trajectories)} trajectories rewritten, {len(report.taken_down)} taken down",
        *(f"{name}: version {version}" for name, version in report.versions.items()),
        *(f"{name}: {n} rows dropped; build it again" for name, n in report.rows_dropped.items() if n),
        f"{sum(report.files_erased.values())} old files erased, {report.cached} cached replies deleted",
    ]
    for model in report.models:
        rows = "an unknown number of" if model["rows"] is None else model["rows"]
        lines.append(f"model {model['model_id']} was trained on {rows} of these rows ({model['dataset']})")
    return [*lines, f"kept as redactions/{report.name}.json"]
