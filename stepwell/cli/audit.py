"""Commands about critics that are there already: audit one, let several vote."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import pyarrow.compute as pc
import typer

from schemas.kinds import LABELS
from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, open_lake, output, require_version
from stepwell.critics.audit import TRUTH, Audit, step_labels
from stepwell.critics.ensemble import Ensemble, judge_new
from stepwell.critics.examine import examine
from stepwell.errors import UnknownName
from stepwell.evaluation.sensitivity import Sensitivity, leaked_share, sensitivity
from stepwell.sheets import Sheet

HARMFUL = LABELS.index("mistake")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("audit")(audit_command)
    app.command("vote")(vote_command)


def audit_command(
    critic: Annotated[str, typer.Argument(help="Policy whose verdicts are examined.")],
    truth: Annotated[str, typer.Option("--truth", help="Policy whose verdicts are taken as true.")] = TRUTH,
    others: Annotated[
        list[str] | None, typer.Option("--with", help="Another rater, for alpha; may be repeated.")
    ] = None,
    windows: Annotated[
        bool, typer.Option("--windows", help="Lay verdicts on windows over their steps; flags become labels.")
    ] = False,
    leakage: Annotated[
        bool, typer.Option("--leakage", help="Also test whether critiques give the agent away.")
    ] = False,
    sensitive: Annotated[
        bool, typer.Option("--sensitivity", help="Also show what masks lose with a worse critic.")
    ] = False,
    corpus: Annotated[list[str] | None, typer.Option("--corpus", help="Only this corpus; may be repeated.")] = None,
    draws: Annotated[int, typer.Option("--draws", min=100, help="Bootstrap samples of trajectories.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all that is drawn.")] = 0,
    at: Annotated[int | None, typer.Option("--at", help="Version of `events`; default: the current one.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Compare a critic's verdicts with the truth, or with another critic, on the same steps, and with outcomes.

    Example: `stepwell audit rules@1 --truth ground-truth@1`
    """
    opened = open_lake(lake)
    require_version(opened, at)
    found = examine(
        opened, critic, truth, others=others or (), windows=windows, leakage=leakage, corpora=corpus, at=at,
        draws=draws, seed=seed,
    )  # fmt: skip
    shown, document = found.sheets(), found.as_dict()
    if sensitive:
        towards = np.array(found.audit.confusion, np.float64)[: len(LABELS), : len(LABELS)]
        labels, groups = step_labels(found.events, truth)
        arms = sensitivity(labels, groups, [HARMFUL], len(LABELS), towards=towards, draws=draws, seed=seed)
        shown.append(_sensitivity_sheet(found.audit, arms))
        document["sensitivity"] = [asdict(a) for a in arms]
    if json:
        emit(document)
    else:
        for sheet in shown:
            output.print(sheet.terminal())


def vote_command(
    critics: Annotated[list[str], typer.Argument(help="Policies whose verdicts vote.")],
    samples: Annotated[int, typer.Option("--samples", min=1, help="Samples of every critic that vote.")] = 1,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Write the majority verdicts of several critics, or of several samples of one, where they are new or changed.

    Example: `stepwell vote steer-concise@1/my-model/k5/t0.7 --samples 5`
    """
    ensemble, opened = Ensemble(tuple(critics), samples), open_lake(lake)
    verdicts = opened.read("events", columns=["policy"], filters=pc.field("kind") == "verdict")
    judged = set(verdicts.column("policy").to_pylist()) - {None}
    for critic in critics:
        if critic not in judged:
            raise UnknownName("critic", critic, judged, "It has no verdict in the lake: stepwell judge.")
    report = judge_new(opened, ensemble)
    if json:
        emit(asdict(report))
    else:
        counts = f"{report.n_verdicts} verdicts in {report.n_trajectories} trajectories"
        of_them = (
            f"{report.n_ties} ties, {report.n_unparseable} without a readable vote, {report.n_superseded} superseded"
        )
        output.print(f"{report.policy}: {counts}; {of_them}", highlight=False, markup=False)


def _sensitivity_sheet(result: Audit, arms: list[Sensitivity]) -> Sheet:
    rows: list[tuple[Any, ...]] = [
        (
            f"{a.arm} at {a.epsilon:g}", str(a.iou), str(a.loss_steps), str(a.leaked), str(a.lost),
            "-" if a.predicted is None else f"{a.predicted:.3f}",
        )
        for a in arms
    ]  # fmt: skip
    headings = ("labels", "mask overlap", "change of trained steps", "harmful among trained", "good lost", "predicted")
    own = result.scores[HARMFUL]
    rates = [f.value for f in (own.prevalence, own.recall, own.false_alarm)]
    known = [r for r in rates if r is not None]
    note = "flips go where this critic's errors go; steps of unresolved trajectories"
    if len(known) == len(rates):
        note += f"; at its own rates on all steps {leaked_share(*known):.3f} of trained steps would be harmful"
    return Sheet(f"masks of `mistake` against {result.truth}, if labels were flipped", headings, rows, note)
