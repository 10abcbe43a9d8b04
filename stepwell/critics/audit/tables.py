"""The audit as tables.

Belongs here: rows, headings, what a reader must be told. Does not belong here: any figure.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from stepwell.bootstrap import Figure
from stepwell.critics.audit.agreement import Score
from stepwell.critics.audit.calibration import Bin
from stepwell.critics.audit.leakage import Leakage
from stepwell.critics.audit.members import Point
from stepwell.critics.audit.ratings import CLASSES, SEVERITIES
from stepwell.critics.audit.report import Audit
from stepwell.sheets import Sheet


def render(result: Audit) -> list[Table]:
    """The audit as tables for a terminal."""
    return [sheet.terminal() for sheet in sheets(result)]


def sheets(result: Audit) -> list[Sheet]:
    """The tables of an audit: what the figures are of comes first, parts without data are left out."""
    where = f"n = {result.n_steps} steps of {result.n_trajectories} trajectories"
    if result.label_granularity == "window":
        where += ", labels of windows laid over their steps"
    found = []
    if result.n_trajectories:
        found += [
            _scores(f"{result.critic} against {result.truth}: {where}", result.scores, _notes(result)),
            _rates("how common labels are, and what leaving out the unreadable changes", result.scores),
            _matrix(f"{result.truth} (rows) by {result.critic} (columns)", CLASSES, result.confusion),
            _scores(f"{result.truth} against {result.critic}, the other way round", result.reverse),
            _figures("agreement of labels", result.agreement),
            _figures("interventions", result.intervention),
            _figures("first mistake, distance in steps", result.first_error),
        ]
        if sum(map(sum, result.severity_confusion)):
            names = (*(f"severity {i}" for i in range(SEVERITIES)), "unparseable")
            found.append(_matrix("severity: true (rows) by stated (columns)", names, result.severity_confusion))
        if result.categories:
            rows = [
                (c.category, str(c.n_true), str(c.n_predicted), str(c.false_alarm), str(c.missed))
                for c in result.categories
            ]
            found.append(
                Sheet("categories", ("category", "true", "flagged", "false alarm", "missed", "missed lenient"), rows)
            )
    found += [
        _figures("flags against outcomes", result.flags),
        _figures("judgments against outcomes", result.judgments),
        _figures("confidence in labels", result.confidence),
        _bins("reliability of labels", result.reliability),
        _bins("reliability of judgments", result.judgment_reliability),
    ]
    return [s for s in found if s.rows]


def curve_sheet(title: str, points: Sequence[Point]) -> Sheet:
    """Quality over the number of members that vote."""
    rows = [
        (str(p.n), str(p.n_subsets), str(p.accuracy), str(p.macro_f1), str(p.undecided), str(p.accuracy.n))
        for p in points
    ]
    return Sheet(
        title, ("votes", "choices of members", "accuracy", "macro F1", "ties", "n"), rows, "ties count as wrong"
    )


def leakage_sheet(found: Sequence[Leakage]) -> Sheet:
    """Whether critiques give the agent away; .5 is what a critic that does not gets."""
    rows = [
        (
            " | ".join(x.agents), str(x.n_critiques), str(x.n_trajectories), f"{x.auc:.3f}", f"{x.auc_chance:.3f}",
            f"{x.auc_p:.4f}", f"{x.jsd:.4f}", f"{x.jsd_chance:.4f}", f"{x.jsd_p:.4f}",
        )
        for x in found
    ]  # fmt: skip
    names = ("critiques", "trajectories", "AUC", "AUC shuffled", "p", "JSD, bits", "JSD shuffled", "p")
    note = f"matched on severity; agents shuffled over trajectories {found[0].permutations} times" if found else ""
    return Sheet("which agent a critique is about", ("agents", *names), rows, note)


def kind_of(result: Audit) -> str:
    """What the figures may be called, as a sentence."""
    left = f"what a redaction left of {', '.join(result.erased)}"
    if result.kind == "training-fit":
        judged = f" Judged by {left}." if result.erased else ""
        return (
            f"NOT AN EVALUATION but a fit to training data: {result.n_trained_on} of these trajectories are in "
            f"{', '.join(result.trained_on)}, which {result.critic} learnt from. Audit it on others.{judged}"
        )
    if result.erased:
        return (
            f"Judged by {left}, which {result.critic} learnt from: none of these trajectories is in it, but what was "
            "erased nobody can compare, so nobody can say whether this is an evaluation."
        )
    if result.kind == "unknown":
        return f"What {result.critic} was trained on is unknown, so nobody can say whether this is an evaluation."
    return f"An evaluation: none of these trajectories is in the training data of {result.critic}."


def _scores(title: str, scores: Sequence[Score], note: str = "") -> Sheet:
    rows = [(s.label, str(s.n_true), str(s.n_predicted), str(s.precision), str(s.recall), str(s.f1)) for s in scores]
    return Sheet(title, ("label", "true", "predicted", "precision", "recall", "F1"), rows, note)


def _rates(title: str, scores: Sequence[Score]) -> Sheet:
    rows = [(s.label, str(s.prevalence), str(s.false_alarm), str(s.recall_lenient), str(s.f1_lenient)) for s in scores]
    return Sheet(title, ("label", "prevalence", "false alarm", "recall lenient", "F1 lenient"), rows)


def _notes(result: Audit) -> str:
    a = result.agreement
    return (
        f"{kind_of(result)} macro F1 {a['macro_f1']}, Cohen's kappa {a['kappa']}; bootstrap by trajectory, "
        f"{result.draws} draws, seed {result.seed}; lenient leaves out what cannot be read or was not said; "
        f"{result.n_not_judged} steps of trajectories not judged are left out"
    )


def _matrix(title: str, names: Sequence[str], matrix: Sequence[Sequence[int]]) -> Sheet:
    kept = [i for i in range(len(names)) if any(matrix[i]) or any(row[i] for row in matrix)]
    return Sheet(title, ("", *(names[i] for i in kept)), [(names[i], *(str(matrix[i][j]) for j in kept)) for i in kept])


def _figures(title: str, named: dict[str, Figure]) -> Sheet:
    rows = [
        (name.replace("_", " "), _show(f), "-" if f.low is None else f"{f.low:.3f} to {f.high:.3f}", str(f.n))
        for name, f in named.items()
        if f.value is not None
    ]
    return Sheet(title, ("figure", "value", "95% interval", "n"), rows)


def _bins(title: str, bins: Sequence[Bin]) -> Sheet:
    rows = [
        (
            f"{b.low:.2f} to {b.high:.2f}",
            str(b.n),
            f"{b.confidence:.3f}",
            f"{b.right:.3f}",
            f"{b.right - b.confidence:+.3f}",
        )
        for b in bins
    ]
    return Sheet(title, ("confidence", "n", "mean confidence", "share right", "gap"), rows)


def _show(figure: Figure) -> str:
    return "-" if figure.value is None else f"{figure.value:.3f}"
