"""Commands about critics: judge, audit."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, open_lake, output
from stepwell.critics.audit import TRUTH, audit, render
from stepwell.critics.rules import POLICY
from stepwell.critics.run import judge_new
from stepwell.log import EventLog

_AUDITED = ["event_id", "trajectory_id", "step", "kind", "actor", "policy", "verdict", "retraction"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("judge")(judge_command)
    app.command("audit")(audit_command)


def judge_command(
    critic: Annotated[str, typer.Option("--critic", help="Critic that runs in this process.")] = POLICY,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Judge the steps of every trajectory that is new or changed since this critic last ran.

    Example: `stepwell judge --critic rules@1`
    """
    report = judge_new(open_lake(lake), critic)
    if json:
        emit(report.__dict__)
    else:
        counts = ", ".join(f"{n} {what}" for what, n in report.counts().items())
        output.print(f"{critic}: {counts}, at events version {report.events_version}", highlight=False)


def audit_command(
    critic: Annotated[str, typer.Option("--critic", help="Policy whose verdicts are examined.")] = POLICY,
    truth: Annotated[str, typer.Option("--truth", help="Policy whose verdicts are taken as true.")] = TRUTH,
    corpus: Annotated[list[str] | None, typer.Option("--corpus", help="Only this corpus; may be repeated.")] = None,
    draws: Annotated[int, typer.Option("--draws", min=100, help="Bootstrap samples of trajectories.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    at: Annotated[int | None, typer.Option("--at", help="Version of `events`; default: the current one.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Compare a critic's verdicts with the truth, or with another critic, on the same steps.

    Example: `stepwell audit --critic rules@1 --truth ground-truth@1`
    """
    log = EventLog(open_lake(lake))
    rows = log.read(at, corpora=corpus, kinds=["verdict", "retraction"], columns=_AUDITED)
    result = audit(rows, critic, truth, draws, seed)
    if json:
        emit(result.as_dict())
    else:
        for table in render(result):
            output.print(table)
