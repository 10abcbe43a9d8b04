"""Auditing a critic: its verdicts against those of another policy on the same steps.

Belongs here: agreement figures with their intervals. Does not belong here: making verdicts. Where the critic judged a
trajectory but gave no readable label for a step, the step counts against it as `unparseable` (strict); the lenient
figures leave such steps out. Bootstrap by trajectory, as steps of one trajectory are not independent (METHODS.md K4).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from schemas.kinds import LABELS
from stepwell.critics.turns import retracted
from stepwell.errors import UsageError

TRUTH = "ground-truth@1"
HARMFUL = "mistake"
CLASSES = (*LABELS, "unparseable")
_CHUNK = 200  # draws held at a time
Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 of one label; None where undefined. `low` and `high` bound F1 with 95% confidence."""

    label: str
    n_true: int
    n_predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    low: float | None
    high: float | None
    lenient_f1: float | None


@dataclass(frozen=True)
class Audit:
    """Agreement of a critic with a truth: `confusion[i][j]` counts steps of true label i predicted as CLASSES[j]."""

    critic: str
    truth: str
    n_steps: int
    n_trajectories: int
    n_not_judged: int
    confusion: list[list[int]]
    scores: list[Score]
    macro_f1: float | None
    macro_low: float | None
    macro_high: float | None
    kappa: float | None
    harmful: Score
    draws: int
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """The audit as one JSON document."""
        return asdict(self) | {"labels": list(LABELS), "classes": list(CLASSES)}


def audit(
    events: pa.Table,
    critic: str,
    truth: str = TRUTH,
    draws: int = 2000,
    seed: int = 0,
    *,
    truth_actor: str | None = None,
) -> Audit:
    """Compare the step verdicts of two policies; `events` holds at least all verdicts and retractions, in any order.

    Steps of trajectories the critic never judged are counted in `n_not_judged` and left out. Raises UsageError when no
    step was judged by both.
    """
    streams, n_not_judged = _paired(events, critic, truth, truth_actor)
    if not streams:
        have = sorted({p for p in _verdicts(events).column("policy").to_pylist() if p})
        raise UsageError(
            f"no step has a verdict of both {critic!r} and {truth!r}; policies with verdicts: "
            f"{', '.join(have) or 'none'}. Name two of these, or run `stepwell judge` first."
        )
    per_stream = np.stack([streams[k] for k in sorted(streams)])
    total = per_stream.sum(axis=0)
    rng = np.random.default_rng(seed)
    samples = np.concatenate(
        [_resample(per_stream, rng, min(_CHUNK, draws - i)) for i in range(0, draws, _CHUNK)] or [total[None]]
    )
    scores = [_score(label, total, samples, [i], [i]) for i, label in enumerate(LABELS)]
    macro = np.stack([_f1(samples, [i], [i]) for i in range(len(LABELS))], axis=1)
    known = [s.f1 for s in scores if s.f1 is not None]
    low, high = _interval(_mean(macro))
    bad = [LABELS.index(HARMFUL)]
    return Audit(
        critic,
        truth,
        int(total.sum()),
        len(streams),
        n_not_judged,
        total.astype(int).tolist(),
        scores,
        sum(known) / len(known) if known else None,
        low,
        high,
        _kappa(total),
        _score("harmful", total, samples, bad, bad),
        draws,
        seed,
    )


def render(result: Audit) -> list[Table]:
    """The audit as two tables for a terminal: figures by label, and the confusion matrix."""
    where = f"n = {result.n_steps} steps of {result.n_trajectories} trajectories"
    figures = Table(title=f"{result.critic} against {result.truth}: {where}", title_justify="left")
    for name in ("label", "true", "predicted", "precision", "recall", "F1", "95% interval", "F1 lenient"):
        figures.add_column(name, justify="left" if name == "label" else "right")
    for s in [*result.scores, result.harmful]:
        numbers = [_show(v) for v in (s.precision, s.recall, s.f1)]
        figures.add_row(
            s.label,
            str(s.n_true),
            str(s.n_predicted),
            *numbers,
            f"{_show(s.low)} to {_show(s.high)}",
            _show(s.lenient_f1),
        )
    figures.caption = (
        f"macro F1 {_show(result.macro_f1)} ({_show(result.macro_low)} to {_show(result.macro_high)}), Cohen's kappa "
        f"{_show(result.kappa)}; bootstrap by trajectory, {result.draws} draws, seed {result.seed}; "
        f"{result.n_not_judged} steps of trajectories not judged are left out"
    )
    matrix = Table(title="true label (rows) by predicted label (columns)", title_justify="left")
    matrix.add_column("")
    for name in CLASSES:
        matrix.add_column(name, justify="right")
    for label, row in zip(LABELS, result.confusion, strict=True):
        matrix.add_row(label, *(str(n) for n in row))
    return [figures, matrix]


def _verdicts(events: pa.Table) -> pa.Table:
    return events.filter(pc.equal(events.column("kind"), "verdict"))


def _paired(events: pa.Table, critic: str, truth: str, truth_actor: str | None) -> tuple[dict[str, Counts], int]:
    gone, down = retracted(events)
    rows = _verdicts(events)
    payload = rows.column("verdict")
    names = ("scope", "label", "parse_status", "candidate")
    columns = [rows.column(n).to_pylist() for n in ("trajectory_id", "step", "event_id", "policy", "actor")]
    columns += [pc.struct_field(payload, n).to_pylist() for n in names]
    best: dict[str, dict[tuple[str, int], tuple[int, str, str]]] = {critic: {}, truth: {}}
    for stream, step, event_id, policy, actor, scope, label, status, candidate in zip(*columns, strict=True):
        if policy not in best or scope != "step" or step is None or event_id in gone or stream in down:
            continue
        if policy == truth and truth_actor is not None and actor != truth_actor:
            continue
        readable = label if label in LABELS and status != "unparseable" else "unparseable"
        entry = (candidate or 0, event_id, readable)
        best[policy][stream, step] = min(entry, best[policy].get((stream, step), entry))
    judged = {stream for stream, _ in best[critic]}
    streams: dict[str, Counts] = {}
    left_out = 0
    for (stream, step), (_, _, true) in best[truth].items():
        if true == "unparseable":
            continue
        if stream not in judged:
            left_out += 1
            continue
        predicted = best[critic].get((stream, step), (0, "", "unparseable"))[2]
        counts = streams.setdefault(stream, np.zeros((len(LABELS), len(CLASSES))))
        counts[LABELS.index(true), CLASSES.index(predicted)] += 1
    return streams, left_out


def _resample(per_stream: Counts, rng: np.random.Generator, draws: int) -> Counts:
    n = len(per_stream)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=draws)
    drawn: Counts = (weights @ per_stream.reshape(n, -1)).reshape(draws, *per_stream.shape[1:])
    return drawn


def _f1(counts: Counts, rows: list[int], columns: list[int]) -> Counts:
    """2 TP / (true + predicted) of each matrix; NaN where the label is neither true nor predicted."""
    hits = counts[..., rows, :][..., columns].sum(axis=(-1, -2))
    size = counts[..., rows, :].sum(axis=(-1, -2)) + counts[..., columns].sum(axis=(-1, -2))
    return _ratio(2 * hits, size)


def _ratio(part: Counts, whole: Counts) -> Counts:
    """part / whole, NaN where whole is 0."""
    whole = np.asarray(whole, np.float64)
    ratio: Counts = np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
    return ratio


def _score(name: str, total: Counts, samples: Counts, rows: list[int], columns: list[int]) -> Score:
    hits = float(total[rows][:, columns].sum())
    n_true, n_predicted = int(total[rows].sum()), int(total[:, columns].sum())
    low, high = _interval(_f1(samples, rows, columns))
    lenient = total.copy()
    lenient[:, CLASSES.index("unparseable")] = 0
    return Score(
        name,
        n_true,
        n_predicted,
        hits / n_predicted if n_predicted else None,
        hits / n_true if n_true else None,
        _known(_f1(total, rows, columns)),
        low,
        high,
        _known(_f1(lenient, rows, columns)),
    )


def _kappa(total: Counts) -> float | None:
    square = np.vstack([total, np.zeros((1, total.shape[1]))])
    n = square.sum()
    observed = np.trace(square) / n
    expected = float((square.sum(axis=0) * square.sum(axis=1)).sum() / n**2)
    return None if expected == 1 else float((observed - expected) / (1 - expected))


def _mean(values: Counts) -> Counts:
    """Row means over what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def _interval(values: Counts) -> tuple[float | None, float | None]:
    kept = values[~np.isnan(values)]
    if not len(kept):
        return None, None
    return float(np.quantile(kept, 0.025)), float(np.quantile(kept, 0.975))


def _known(value: Counts) -> float | None:
    return None if np.isnan(value) else float(value)


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
