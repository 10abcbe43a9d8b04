"""Commands that compare: compare (arms on the same tasks) and grim (can a reported percentage be a count at all)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, console, emit, open_lake, output, writing
from stepwell.errors import StepwellError, UsageError
from stepwell.health.access import writable


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("compare")(compare)
    app.command("grim")(grim)


def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARM]...",
            help="Recipes, models, evaluations, or NAME=EVALUATION,EVALUATION; default: every arm of the lake.",
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="The arm the others are compared with; default: the first.")
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Compare every pair, not only with the baseline.")] = False,
    suite: Annotated[str | None, typer.Option("--suite", help="Task suite, where the arms share several.")] = None,
    on_common: Annotated[
        bool, typer.Option("--on-common", help="Where arms have different tasks, compare on those they share.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option("--prices", exists=True, help="YAML price list; costs are recomputed from usage.")
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Extra rows: what was not submitted replaced by the baseline's run.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the whole report: .html, .md or .json.")
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Compare evaluated arms on the same tasks: paired tests with correction, costs, failure modes, the sentence to write.

    Example: `stepwell compare base rft srft -o report.html`
    """
    from stepwell.evaluation.arms import known
    from stepwell.evaluation.compare import compare as compared_arms
    from stepwell.evaluation.prices import read_prices
    from stepwell.evaluation.recorded import record
    from stepwell.evaluation.report import document, write
    from stepwell.evaluation.tables import summary

    opened = open_lake(lake)
    given = list(names or dict.fromkeys(found.name for found in known(opened)))
    if not given:
        raise UsageError(f"nothing is evaluated in {opened.uri} yet; evaluate a model: stepwell evaluate RECIPE.")
    compared = compared_arms(
        opened, given, baseline=baseline, every_pair=pairs, suite=suite, on_common=on_common,
        prices=read_prices(prices) if prices else None, fallback=fallback,
    )  # fmt: skip
    if to is not None:
        with writing(to):
            write(compared, to)
    if writable(opened):
        record(opened, compared)
    else:
        console.print("not kept in `comparisons`: this user cannot write the lake", highlight=False)
    if json:
        emit(document(compared))
        return
    for sheet in summary(compared):
        output.print(sheet.terminal())
    for line in (
        *(p.sentence for p in compared.pairs),
        *compared.notes,
        *dict.fromkeys(p.said for p in compared.pairs),
    ):
        output.print(line, markup=False, highlight=False)
    if to is not None:
        console.print(f"the whole report is in {to}", markup=False, highlight=False)


def grim(
    reported: Annotated[str, typer.Argument(help="A percentage as it was printed, with its decimals.")],
    n: Annotated[int, typer.Option("--n", min=1, help="The number of tasks it is said to be a share of.")],
    json: JsonOption = False,
) -> None:
    """Check that a reported percentage can be a count out of n; the status is 1 when it cannot.

    Example: `stepwell grim 28.5 --n 500`
    """
    from stepwell.evaluation.grim import grim as check

    found = check(reported, n)
    if json:
        emit({**found.__dict__, "possible": found.possible})
    elif found.possible:
        output.print(found.line(), highlight=False)
    if not found.possible:
        raise StepwellError(found.line())
