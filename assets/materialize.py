"""Materialise the graph from a terminal: `python -m assets.materialize [--select NAME ...]`, then print what was made.

Runs in this process, on the instance of dagster.yaml, so the Dagster UI shows the same runs afterwards.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.table import Table

from assets.branch import bases
from assets.definitions import build_defs
from assets.resources import Experiments, Settings
from stepwell.critics.examine import examine
from stepwell.critics.rules import POLICY
from stepwell.display import terminal
from stepwell.errors import UsageError
from stepwell.evaluation.recorded import compare_all
from stepwell.evaluation.tables import gap, share
from stepwell.lineage import render_trace, trace
from stepwell.models import find, registered
from stepwell.recipe import Recipe

console = Console()
_STARTED = time.monotonic()


class _Lines(logging.Handler):
    """Finished steps, and the lines assets and jobs log, as they come."""

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        stamp = f"{time.monotonic() - _STARTED:5.0f} s"
        if event is None and record.levelno >= logging.INFO:
            console.print(
                f"{stamp}   {meta.get('orig_message') or record.getMessage()}",
                style="dim",
                markup=False,
                highlight=False,
            )
        elif event is not None and event.event_type_value in ("STEP_SUCCESS", "STEP_FAILURE"):
            ok = event.event_type_value == "STEP_SUCCESS"
            console.print(
                f"{stamp} {'done  ' if ok else 'FAILED'} {event.step_key}",
                style="green" if ok else "red",
                highlight=False,
            )
            if not ok:
                console.print(str(event.event_specific_data.error), markup=False, highlight=False)


@dg.logger
def lines(context: dg.InitLoggerContext) -> logging.Logger:
    """A logger that prints what a person at a terminal wants to follow."""
    logger = logging.getLogger("stepwell.materialize")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.handlers = [_Lines()]
    return logger


def materialize(
    select: str | None = None, partition: str | None = None, recipes: Collection[str] | None = None
) -> bool:
    """Materialise the selected assets (default: all without partitions, of these recipes where some are named).

    True when every step and every check succeeded.
    """
    warnings.filterwarnings("ignore", message="Function `Pipes")  # dagster's own code uses its preview functions
    os.environ.setdefault("DAGSTER_HOME", str(Path.cwd()))
    experiments = Experiments.load()
    definitions = build_defs(experiments, loggers={"console": lines})
    graph = definitions.resolve_asset_graph()
    chosen = (
        dg.AssetSelection.from_string(select).resolve(graph) if select else whole(graph, experiments.recipes, recipes)
    )
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        run_config={"loggers": {"console": {}}},
        instance=dg.DagsterInstance.get(),
        asset_selection=sorted(chosen),
        partition_key=partition,
        raise_on_error=False,
    )
    failed = [e.asset_check_evaluation_data.check_name for e in result.all_events if _failed_check(e)]
    if failed:
        console.print(f"failed checks: {', '.join(failed)}", style="red")
    return bool(result.success) and not failed


def whole(
    graph: dg.AssetGraph, every: Mapping[str, Recipe], recipes: Collection[str] | None = None
) -> set[dg.AssetKey]:
    """The assets without partitions; where some of `every` recipe are named, without the branches of others.

    Raises UsageError for a name that is no recipe's.
    """
    known = set(every)
    if unknown := sorted(set(recipes or ()) - known):
        raise UsageError(f"recipes {', '.join(unknown)}; there are: {', '.join(sorted(known))}. Name some of those.")
    others = known - set(recipes) if recipes else set()
    of_bases = {key: {recipe.name for recipe in alike} for key, alike in bases(every).items()}
    keys = (key for key in graph.get_all_asset_keys() if graph.get(key).partitions_def is None)
    return {key for key in keys if not of_bases.get(key, {key.path[-1]}) <= others}


def _failed_check(event: dg.DagsterEvent) -> bool:
    return event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.asset_check_evaluation_data.passed


def closing_table() -> Table:
    """One line an arm: resolve rate with interval, seeds, steps, loops, masked share, and the difference to the first."""
    compared, left_out = compare_all(Settings().lake())
    table = Table(title="held-out tasks", caption="\n".join(map(terminal, left_out)), caption_justify="left")
    for column in (
        "arm",
        "resolved",
        "tasks",
        "seeds",
        "steps",
        "stuck",
        "masked steps",
        "against the first",
        "p (Holm)",
    ):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for one in compared:
        against = {p.b: p for p in one.pairs if p.a == one.arms[0].name}
        for arm in one.arms:
            pair, shown = against.get(arm.name), arm.figures
            table.add_row(
                arm.name, share(shown["resolved"]), str(arm.n_tasks), "single run" if arm.n_seeds == 1 else str(arm.n_seeds),
                f"{shown['steps'].value:.1f}", f"{100 * (shown['stuck'].value or 0):.1f}%",
                "-" if arm.masked_share is None else f"{100 * arm.masked_share:.1f}%",
                gap(pair.difference) if pair else "-", f"{pair.p_adjusted:.3f}" if pair else "-",
            )  # fmt: skip
    return table


def audit_table() -> Table | str:
    """How the step rules agree with the ground truth of the corpora, or why that cannot be said."""
    try:
        return examine(Settings().lake(), POLICY).sheets()[0].terminal()
    except UsageError as nothing:
        return str(nothing)


def main() -> None:
    """Materialise, then print the closing table, how good the step rules were, and the trace of one model."""
    parser = argparse.ArgumentParser(prog="python -m assets.materialize", description=__doc__.splitlines()[0])
    parser.add_argument("--select", help="asset selection, such as key:datasets/srft or group:1_log")
    parser.add_argument(
        "--recipes", nargs="+", help="branches to materialise, by recipe; default: all without partitions"
    )
    parser.add_argument("--trace", help="model to trace at the end; default: srft, where it is there")
    options = parser.parse_args()
    if not materialize(options.select, recipes=options.recipes):
        sys.exit(1)
    console.print(closing_table())
    console.print(audit_table())
    if options.trace or find("srft", registered(Settings().lake())):
        console.print(render_trace(trace(Settings().lake(), options.trace or "srft")))


if __name__ == "__main__":
    main()
