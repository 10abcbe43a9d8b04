"""A comparison as tables: headings and cells, for a terminal, markdown and HTML alike.

Belongs here: which figures stand in which column, and how a number is written. Does not belong here: any figure (`compare`),
pages and plots (`report`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepwell.bootstrap import Figure
from stepwell.evaluation.claims import Pair, percent, points
from stepwell.evaluation.compare import ArmReport, Comparison
from stepwell.evaluation.modes import Group
from stepwell.evaluation.seeds import Crossed
from stepwell.sheets import Sheet


def summary(c: Comparison) -> list[Sheet]:
    """What a reader wants first: the arms, and the pairs with their tests."""
    return [_arms(c), _pairs(c)]


def sheets(c: Comparison) -> list[Sheet]:
    """Every table of a comparison; those without rows are left out."""
    every = [*summary(c), _runs(c), _costs(c), _seeds(c), _passes(c), _fallback(c)]
    for p in c.pairs:
        every += _explained(p)
    return [s for s in every if s.rows]


def share(f: Figure | None) -> str:
    """A share with its interval, in percent."""
    return _written(f, 100, 1, "%")


def number(f: Figure | None, digits: int = 1) -> str:
    """A mean with its interval."""
    return _written(f, 1, digits, "")


def dollars(f: Figure | None) -> str:
    """US dollars with their interval."""
    return "-" if f is None or f.value is None else f"${f.value:.4g}" + _interval(f, lambda x: f"{x:.4g}")


def gap(f: Figure) -> str:
    """A difference of shares in points, with its interval."""
    return "-" if f.value is None else points(f.value) + _interval(f, points)


def _written(f: Figure | None, scale: float, digits: int, unit: str) -> str:
    if f is None or f.value is None:
        return "-"
    return f"{scale * f.value:.{digits}f}{unit}" + _interval(f, lambda x: f"{scale * x:.{digits}f}")


def _interval(f: Figure | Crossed, written: Callable[[float], str]) -> str:
    if f.low is None or f.high is None:
        return ""
    return f" [{written(f.low)}, {written(f.high)}]"


def _name(arm: ArmReport) -> str:
    return f"{arm.name} ({'single run' if arm.n_seeds == 1 else f'{arm.n_seeds} seeds'})"


def _arms(c: Comparison) -> Sheet:
    rows = [
        (_name(a), share(a.figures["resolved"]), str(a.n_tasks), str(a.n_attempts), share(a.figures["submitted"]),
         share(a.figures["resolved_on_submitted"]), number(a.figures["steps"]), share(a.figures["stuck"]))
        for a in c.arms
    ]  # fmt: skip
    note = (
        "95% intervals: Wilson's for shares of one attempt a task, else the bootstrap over tasks; of resolved on submitted "
        "and means always the latter"
    )
    headings = ("arm", "resolved", "tasks", "attempts", "submitted", "resolved / submitted", "steps", "stuck in a loop")
    return Sheet(f"{c.suite}: {len(c.arms)} arms on the same {c.n_tasks} tasks", headings, rows, note)


def _pairs(c: Comparison) -> Sheet:
    rows = []
    for p in c.pairs:
        both = "-" if p.crossed is None else _interval(p.crossed, points).strip() or "none"
        least = "none" if p.detectable is None else f"{100 * p.detectable:.1f}"
        rows.append(
            (f"{p.b} - {p.a}", gap(p.difference), both, f"{p.only_b} / {p.only_a}", p.test, f"{p.p_value:.3f}",
             f"{p.p_adjusted:.3f}", f"{p.q_value:.3f}", least)
        )  # fmt: skip
    headings = ("difference", "points [95% over tasks]", "[over tasks and seeds]", "tasks better / worse", "test", "p",
                "p (Holm)", "q (BH)", "shows from")  # fmt: skip
    note = "shows from: the smallest difference in points that so many tasks show with 80% power at 5%"
    return Sheet(f"Pairs, p-values corrected for {len(c.pairs)}", headings, rows, note)


def _runs(c: Comparison) -> Sheet:
    rows = [
        (a.name, *(number(a.figures[n], 0) for n in ("tokens_in", "tokens_out", "cache_read")),
         "-" if a.masked_share is None else percent(a.masked_share), str(a.left_out), ", ".join(a.evaluations))
        for a in c.arms
    ]  # fmt: skip
    headings = (
        "arm",
        "tokens in",
        "tokens out",
        "of them cached",
        "steps masked in training",
        "left out",
        "evaluations",
    )
    return Sheet("Runs: the agent's tokens per task", headings, rows, "cached ones are among the tokens in")


def _costs(c: Comparison) -> Sheet:
    if c.no_costs is not None:
        return Sheet("Costs", (), ())
    ratios = {p.b: p.figures for p in c.pairs if p.a == c.arms[0].name}
    rows = []
    for a in c.arms:
        ratio = ratios.get(a.name, {})
        recorded = "-" if a.recorded_usd is None else f"${a.recorded_usd / a.n_attempts:.4g}"
        rows.append(
            (a.name, dollars(a.figures["model_usd"]), dollars(a.figures["critic_usd"]), dollars(a.figures["usd_per_task"]),
             dollars(a.figures["usd_per_resolved"]), share(a.figures["critic_share"]), number(ratio.get("cost_ratio"), 2),
             number(ratio.get("cost_per_resolved_ratio"), 2), recorded)
        )  # fmt: skip
    first = c.arms[0].name
    headings = ("arm", "agent a task", "critic a task", "$ a task", "$ a resolved task", "critic's share",
                f"cost / {first}", f"cost a resolved / {first}", "recorded a task")  # fmt: skip
    return Sheet(
        f"Costs, all arms under {c.price_policy}", headings, rows, "intervals: bootstrap over tasks, ratios paired"
    )


def _seeds(c: Comparison) -> Sheet:
    rows = [
        (a.name, str(a.n_seeds), share(a.seeds), *(f"{v:.4f}" for v in a.components.__dict__.values()))
        for a in c.arms
        if a.components is not None
    ]
    note = "mean +- t_(S-1) s / sqrt(S); variance components of outcomes by two-way random effects"
    headings = ("arm", "seeds", "mean over seeds", "variance of tasks", "of seeds", "of the rest")
    return Sheet("Seeds", headings, rows, note)


def _passes(c: Comparison) -> Sheet:
    rows = [(a.name, n, share(f), str(f.n)) for a in c.arms for n, f in a.figures.items() if n.startswith("pass")]
    note = "pass@k: one of k attempts resolves; pass^k: all of k do; unbiased, intervals over tasks"
    return Sheet("Several attempts", ("arm", "figure", "share", "tasks"), rows, note)


def _fallback(c: Comparison) -> Sheet:
    rows = [(name, share(f), str(f.n)) for name, f in c.fallback]
    note = "not the policy alone: beside the plain rows above, never in their place"
    return Sheet("With fallback", ("what", "resolved", "tasks"), rows, note)


def _explained(p: Pair) -> list[Sheet]:
    shown = [m for m in p.modes if m.a or m.b]
    ways = [(m.mode, percent(m.a), percent(m.b), gap(m.difference)) for m in shown]
    names = (p.a, p.b, "difference in points [95%]")
    note = " ".join(["not corrected for the number of lines: they explain, they claim nothing.", *p.notes])
    return [
        Sheet(f"{p.b} - {p.a}: how attempts went, share of them", ("mode", *names), ways, note),
        Sheet(
            f"{p.b} - {p.a}: groups of tasks", ("tasks", "n", *names), _grouped(p.groups),
            "hard and easy by what the other arms resolve, so that neither of these two chooses the groups",
        ),
        Sheet(f"{p.b} - {p.a}: {p.said}", ("tasks", "n", *names), _grouped(p.contamination)),
    ]  # fmt: skip


def _grouped(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    return [
        (g.group, str(g.n), *("-" if x is None else percent(x) for x in (g.a, g.b)), gap(g.difference)) for g in groups
    ]
