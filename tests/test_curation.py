"""Selection: each stage does what it says, for any trajectories and in any order of their events, and says why."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lakes
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lakes import Step, trajectory
from typer.testing import CliRunner

from schemas.steps import STEPS
from schemas.trajectories import TRAJECTORIES
from stepwell.cli import build_app
from stepwell.conditions import Condition
from stepwell.contamination.text import jaccard, shingles
from stepwell.curation import choices
from stepwell.curation.duplicates import KEPT
from stepwell.curation.select import COLUMNS, STAGES, Selection, select
from stepwell.data_settings import Balance, Cap, Difficulty, Mix, Split
from stepwell.datasets.verify import verify
from stepwell.errors import RecipeError, UnknownName
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe, load
from stepwell.rendering import Renderer

DATA = Path(__file__).parents[2] / "shared" / "data"
BOTH = ("demo", "other")
fast = settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
"""Each example writes a lake, so one that fails is shown as it was found."""
quick = settings(max_examples=80, deadline=None)

COMMANDS = st.lists(
    st.sampled_from(["view", "check", "sub 1 a b", "cat a.py", "rm -rf x", "submit"]), min_size=1, max_size=4
)
POOL = st.lists(
    st.tuples(st.integers(0, 4), COMMANDS, st.sampled_from([True, False, None]), st.sampled_from(BOTH)),
    min_size=1,
    max_size=14,
)
CURATE = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.lists(
            st.fixed_dictionaries(
                {"where": st.sampled_from(["command LIKE 'rm%'", "exit_code = 0", "step > 1"])},
                optional={"when": st.sampled_from(["any", "all", "share"])},
            ),
            max_size=2,
        ),
        "length": st.just({"least": 2, "most": 3}),
        "difficulty": st.fixed_dictionaries({"attempts": st.integers(1, 2)}),
        "dedup": st.fixed_dictionaries(
            {"exact": st.sampled_from(["off", "actions", "conversation"]), "within": st.sampled_from(["task", "everywhere"])},
            optional={"near": st.sampled_from([0.6, 0.9])},
        ),
        "cap": st.fixed_dictionaries(
            {"per_task": st.integers(1, 3), "prefer": st.sampled_from(["resolved", "shortest", "random"])}
        ),
        "balance": st.fixed_dictionaries({"resolved": st.sampled_from([0.25, 0.5, 0.8])}),
        "split": st.fixed_dictionaries({"by": st.sampled_from(["task", "repo"])}),
        "seed": st.integers(0, 3),
    },
)  # fmt: skip


def recipe(curate: dict[str, Any] | None = None, corpora: tuple[str, ...] = BOTH, **source: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "c",
            "source": {"corpora": corpora, **source},
            "curate": curate,
            "dataset": {"method": "all", "held_out": 0.3},
        }
    )


def events_of(pool: list[tuple[int, list[str], bool | None, str]]) -> list[Event]:
    made = [
        trajectory(
            f"t{i:02d}",
            [Step(c, f"out {c}") for c in commands],
            task_id=f"task-{task}",
            resolved=resolved,
            corpus=corpus,
        )
        for i, (task, commands, resolved, corpus) in enumerate(pool)
    ]
    return [event for one in made for event in one]


@contextmanager
def lake_of(events: list[Event], *, folded: bool = True) -> Iterator[Lake]:
    with TemporaryDirectory() as folder:
        lake = Lake(folder)
        EventLog(lake).append(events, "b")
        if folded:
            refresh(lake)
        yield lake


def kept(selection: Selection) -> pl.DataFrame:
    return selection.rows.filter(pl.col("dropped").is_null())


def reasons(selection: Selection) -> Counter[str]:
    return Counter(selection.rows["dropped"].drop_nulls())


@fast
@given(pool=POOL, curate=CURATE, seed=st.integers(0, 99))
def test_a_selection_does_not_depend_on_the_order_of_events_or_on_a_refresh(
    pool: list[Any], curate: dict[str, Any], seed: int
) -> None:
    events = events_of(pool)
    shuffled = random.Random(seed).sample(events, len(events))
    with lake_of(events) as one, lake_of(shuffled, folded=False) as other:
        a, b, again = select(one, recipe(curate)), select(other, recipe(curate)), select(one, recipe(curate))
    assert a.rows.equals(b.rows)
    assert a.rows.equals(again.rows), "with signatures that were kept the answer is the same"
    assert a.funnel == b.funnel
    assert a.rows.columns == list(COLUMNS)
    assert a.rows["trajectory_id"].to_list() == sorted(f"t{i:02d}" for i in range(len(pool)))


@fast
@given(pool=POOL, curate=CURATE)
def test_the_funnel_adds_up_and_reasons_come_in_the_order_of_the_stages(
    pool: list[Any], curate: dict[str, Any]
) -> None:
    with lake_of(events_of(pool)) as lake:
        chosen = select(lake, recipe(curate))
    first, *rest = chosen.funnel
    out = [line for line in rest if line["stage"] == "out"]
    middle = rest[: len(rest) - len(out)]
    assert (first["stage"], first["trajectories"], first["steps"]) == (
        "in",
        len(pool),
        sum(len(c) for _, c, _, _ in pool),
    )
    left = (first["trajectories"], first["steps"])
    for line in middle:
        left = (left[0] - line["trajectories"], left[1] - line["steps"])
        assert (line["left_trajectories"], line["left_steps"]) == left
    assert left == (sum(x["trajectories"] for x in out), sum(x["steps"] for x in out))
    assert left[0] == chosen.n_kept == len(kept(chosen))
    order = [list(STAGES).index(line["stage"]) for line in middle]
    assert order == sorted(order)
    assert {f"{x['stage']}: {x['reason']}": x["trajectories"] for x in middle} == reasons(chosen)


@fast
@given(pool=POOL, curate=CURATE)
def test_what_a_later_stage_leaves_out_an_earlier_one_had_kept(pool: list[Any], curate: dict[str, Any]) -> None:
    """Taking the last stage away changes no reason of an earlier one: stages only ever look at what is left."""
    asked = [name for name in ("steps", "length", "difficulty", "dedup", "cap", "balance") if name in curate]
    with lake_of(events_of(pool)) as lake:
        whole = select(lake, recipe(curate)).rows
        for i, last in list(enumerate(asked))[-2:]:
            fewer = {k: v for k, v in curate.items() if k not in asked[i:]}
            before = select(lake, recipe(fewer)).rows.filter(pl.col("dropped").is_not_null())
            both = before.join(whole, on="trajectory_id", suffix="_whole")
            assert both["dropped"].equals(both["dropped_whole"], check_names=False), last


@fast
@given(pool=POOL, curate=CURATE)
def test_no_task_and_no_repository_is_on_both_sides_of_the_split(pool: list[Any], curate: dict[str, Any]) -> None:
    by = curate.get("split", {}).get("by", "task")
    with lake_of(events_of(pool)) as lake:
        rows = select(lake, recipe(curate)).rows
    assert (rows.group_by("repo" if by == "repo" else "task_id").agg(pl.col("split").n_unique())["split"] == 1).all()


@fast
@given(pool=POOL, what=st.sampled_from(["actions", "conversation"]), within=st.sampled_from(["task", "everywhere"]))
def test_of_equal_trajectories_the_best_is_kept(pool: list[Any], what: str, within: str) -> None:
    with lake_of(events_of(pool)) as lake:
        rows = select(lake, recipe({"dedup": {"exact": what, "within": within}})).rows
    groups: dict[tuple[object, ...], list[tuple[bool, int, str]]] = {}
    for i, (task, commands, resolved, _) in enumerate(pool):
        group = (task if within == "task" else None, *commands)
        groups.setdefault(group, []).append((not resolved, len(commands), f"t{i:02d}"))
    assert set(rows.filter(pl.col("dropped").is_null())["trajectory_id"]) == {min(g)[2] for g in groups.values()}


def long(seed: int, changed: int = 0) -> list[Step]:
    """Sixty commands that vary with the seed, the last `changed` of them otherwise."""
    draw, other = random.Random(seed), random.Random(seed + 1000)
    words = [draw if i < 60 - changed else other for i in range(60)]
    return [
        Step(f"grep -rn {''.join(d.choices('abcdefgh', k=6))} src/{''.join(d.choices('xyz', k=5))}.py") for d in words
    ]


@pytest.mark.parametrize("within", ["task", "everywhere"])
def test_near_copies_go_and_others_stay(lake: Lake, within: str) -> None:
    made = {
        "a-first": trajectory("a-first", long(1), task_id="one", resolved=False),
        "b-near": trajectory("b-near", long(1, changed=4), task_id="one", resolved=True),
        "c-far": trajectory("c-far", long(1, changed=40), task_id="one", resolved=True),
        "d-other": trajectory("d-other", long(2), task_id="one", resolved=True),
        "e-elsewhere": trajectory("e-elsewhere", long(1, changed=2), task_id="two", resolved=True),
    }
    EventLog(lake).append([e for one in made.values() for e in one], "b")
    chosen = select(lake, recipe({"dedup": {"exact": "off", "near": 0.75, "within": within}}))
    gone = set(chosen.rows.filter(pl.col("dropped").is_not_null())["trajectory_id"])
    assert gone == ({"a-first"} if within == "task" else {"a-first", "e-elsewhere"}), "the resolved one is kept"

    def words(steps: list[Step]) -> Any:
        return shingles(" ".join(s.command.replace(".py", " . py").replace("/", " / ") for s in steps if s.command), 5)

    assert (
        jaccard(words(long(1)), words(long(1, changed=4)))
        > 0.8
        > 0.5
        > jaccard(words(long(1)), words(long(1, changed=40)))
    )
    assert lake.store.get(KEPT)
    lake.store.put(KEPT, b"damaged, and worked out again")
    EventLog(lake).append(trajectory("f-new", long(2, changed=1), task_id="one", resolved=False), "more")
    again = select(lake, recipe({"dedup": {"exact": "off", "near": 0.75, "within": within}}))
    assert set(again.rows.filter(pl.col("dropped").is_not_null())["trajectory_id"]) == gone | {"f-new"}


def test_commands_in_other_letters_are_told_apart(lake: Lake) -> None:
    texts = {"a": "исправить ошибку в модуле и запустить тесты", "b": "написать новую страницу для справки и указатель"}
    for name, text in texts.items():
        steps = [Step(f'cat > notes <<"E"\n{text}\nE'), Step(f'git commit -m "{text}"')]
        EventLog(lake).append(trajectory(name, steps, task_id="one"), name)
    assert select(lake, recipe({"dedup": {"exact": "off", "near": 0.5}})).n_kept == 2


ROWS = st.lists(
    st.tuples(
        st.integers(0, 5), st.sampled_from([True, False, None]), st.integers(1, 9), st.sampled_from(["a", "b", "c"])
    ),
    min_size=1,
    max_size=60,
).map(
    lambda rows: pl.DataFrame(
        {
            "trajectory_id": [f"t{i:02d}" for i in range(len(rows))],
            "task_id": [f"task-{r[0]}" if r[0] else None for r in rows],
            "repo": [f"repo-{r[0] // 2}" if r[0] else None for r in rows],
            "resolved": [r[1] for r in rows],
            "n_steps": [r[2] for r in rows],
            "corpus": [r[3] for r in rows],
        },
        schema_overrides={"resolved": pl.Boolean, "task_id": pl.String, "repo": pl.String},
    )
)


def without(rows: pl.DataFrame, gone: choices.Gone) -> pl.DataFrame:
    return rows.filter(~pl.col("trajectory_id").is_in(list(gone)))


@quick
@given(rows=ROWS, n=st.integers(1, 4), prefer=st.sampled_from(["resolved", "shortest", "random"]))
def test_a_cap_holds_and_takes_no_more_than_it_must(rows: pl.DataFrame, n: int, prefer: Any) -> None:
    left = without(rows, choices.by_cap(rows, Cap(per_task=n, prefer=prefer), 0))
    before, after = Counter(rows["task_id"].drop_nulls()), Counter(left["task_id"].drop_nulls())
    assert after == {task: min(n, k) for task, k in before.items()}
    assert left["task_id"].null_count() == rows["task_id"].null_count(), "without a task each is by itself"
    worst = {"resolved": lambda r: not r["resolved"], "shortest": lambda r: r["n_steps"], "random": lambda r: 0}[prefer]
    for task in after:
        here = rows.filter(pl.col("task_id") == task).to_dicts()
        stay = set(left["trajectory_id"])
        ins, outs = [r for r in here if r["trajectory_id"] in stay], [r for r in here if r["trajectory_id"] not in stay]
        assert not outs or max(map(worst, ins)) <= min(map(worst, outs))


@quick
@given(rows=ROWS, share=st.sampled_from([0.2, 0.5, 0.75]), seed=st.integers(0, 5))
def test_a_balance_holds_within_one_trajectory_and_draws_from_one_side(
    rows: pl.DataFrame, share: float, seed: int
) -> None:
    left = without(rows, choices.by_balance(rows, Balance(resolved=share), None, seed))
    good, bad = (int((left["resolved"] == side).sum()) for side in (True, False))
    assert abs(good - share * (good + bad)) <= 1
    assert left["resolved"].null_count() == rows["resolved"].null_count()
    cut = [(rows["resolved"] == s).sum() > (left["resolved"] == s).sum() for s in (True, False)]
    assert sum(cut) <= 1 or not good + bad


@quick
@given(rows=ROWS, weights=st.tuples(*[st.integers(0, 4)] * 3), seed=st.integers(0, 5))
def test_shares_hold_within_one_trajectory_and_one_group_is_whole(
    rows: pl.DataFrame, weights: tuple[int, ...], seed: int
) -> None:
    shares = {name: float(w) for name, w in zip("abc", weights, strict=True)}
    there = set(rows["corpus"])
    if not any(shares.values()) or any(w and name not in there for name, w in shares.items()):
        with pytest.raises(RecipeError, match=r"curate\.mix"):
            choices.by_mix(rows, Mix(weights=shares), seed)
        return
    left = without(rows, choices.by_mix(rows, Mix(weights=shares), seed))
    before, after = Counter(rows["corpus"]), Counter(left["corpus"])
    unit = min(before[name] / w for name, w in shares.items() if w)
    assert all(abs(after[name] - unit * w) < 1 for name, w in shares.items())
    assert any(after[name] == before[name] for name, w in shares.items() if w), "no more is left out than must be"
    for name in after:
        of = [rows.filter(pl.col("corpus") == name), left.filter(pl.col("corpus") == name)]
        good = [int(x["resolved"].fill_null(False).sum()) for x in of]
        assert abs(good[1] - good[0] * len(of[1]) / len(of[0])) <= 1, "a balance survives the mix"


@quick
@given(rows=ROWS, low=st.sampled_from([0.0, 0.5]), inclusive=st.sampled_from(["none", "low", "high", "both"]))
def test_a_band_of_difficulty_counts_graded_attempts_alone(rows: pl.DataFrame, low: float, inclusive: Any) -> None:
    band = Difficulty(low=low, high=1.0, inclusive=inclusive, attempts=2)
    left = set(without(rows, choices.by_difficulty(rows, rows, band))["trajectory_id"])
    for task, name in rows.select("task_id", "trajectory_id").iter_rows():
        grades = [r for t, r in rows.select("task_id", "resolved").iter_rows() if t == task and r is not None]
        rate = sum(grades) / len(grades) if grades else -1
        inside = (low < rate or (rate == low and inclusive in ("low", "both"))) and (
            rate < 1 or (rate == 1 and inclusive in ("high", "both"))
        )
        assert (name in left) == (task is not None and len(grades) >= 2 and inside)


@quick
@given(rows=ROWS, by=st.sampled_from(["task", "repo"]))
def test_what_is_held_out_is_so_in_every_selection_and_what_is_named_always(rows: pl.DataFrame, by: Any) -> None:
    named = (rows["repo" if by == "repo" else "task_id"].drop_nulls().to_list() or ["nobody"])[0]
    column = pl.coalesce("repo" if by == "repo" else "task_id", "task_id", "trajectory_id")
    told = rows.with_columns(choices.split_of(rows, Split(by=by, held_out=(named,)), 0.3), group=column)
    half = told.head(len(told) // 2)
    assert half["split"].equals(choices.split_of(half, Split(by=by, held_out=(named,)), 0.3))
    assert (told.filter(pl.col("group") == named)["split"] == "held_out").all()
    assert (told.group_by("group").agg(pl.col("split").n_unique())["split"] == 1).all()
    assert (choices.split_of(rows, Split(by=by), 0.0) == "train").all()


@pytest.mark.parametrize("share", [i / 20 for i in range(1, 20)])
@pytest.mark.parametrize("named", ["nobody", "repo-2"])
def test_attempts_that_tell_another_repository_or_none_are_on_the_side_of_their_task(share: float, named: str) -> None:
    told = [("one", "repo-1"), ("one", None), ("two", "repo-1"), ("three", "repo-2"), ("three", "repo-1"), (None, None)]
    rows = pl.DataFrame(
        {"trajectory_id": [f"t{i}" for i in range(6)], "task_id": [t for t, _ in told], "repo": [r for _, r in told]}
    )
    sides = choices.split_of(rows, Split(by="repo", held_out=(named,)), share).to_list()
    assert sides[0] == sides[1] == sides[2]
    assert sides[3] == sides[4]
    assert named == "nobody" or sides[3] == "held_out"


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("resolvd", "no column 'resolvd'"),
        ("true; DROP TABLE trajectories", "Only SELECT"),
        ("true) UNION SELECT 1", "syntax error"),
        ("true ORDER BY n_steps LIMIT 1", "more than one condition"),
        ("n_steps IN (SELECT 1)", "subquery"),
        ("EXISTS (FROM read_text('/etc/passwd'))", "subquery"),
        ("read_text('/etc/passwd') = 'x'", "read_text"),
        ("random() < 0.5", "not the same at every time"),
        ("started_at < now()", "not the same at every time"),
        ("started_at < current_date", "no column 'current_date'"),
        ("sum(n_steps) > 3", "aggregates"),
        ("COLUMNS(*) IS NULL", "names no columns"),
        ("'a'", "BOOL"),
        ("", "syntax error"),
    ],
)
def test_what_is_no_condition_is_refused_before_anything_is_read(sql: str, why: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Condition(sql, TRAJECTORIES, "source.where")
    assert why in str(caught.value)
    assert "`source.where`" in str(caught.value)
    assert "n_steps" in str(caught.value), "the columns that are allowed are named"


def test_conditions_are_the_sql_of_the_command_line() -> None:
    rows = pl.DataFrame({"trajectory_id": ["a1", "b2", "c3"], "step": [0, 1, 2], "command": ["ls", None, "rm -rf /"]})
    rows = rows.with_columns(pl.col("step").cast(pl.Int32))
    for sql, holds in [
        ("regexp_matches(command, '^rm\\s')", [False, False, True]),
        ("steps.STEP >= 1 AND command IS NULL", [False, True, False]),
        ("list_contains(list_transform([0, 1], lambda x: x + 1), step)", [False, True, True]),
        ("true", [True, True, True]),
        ("command = 'ls' -- and nothing else", [True, False, False]),
    ]:
        assert Condition(sql, STEPS, "x").holds(rows).to_list() == holds, sql
    assert Condition("exit_code = 0 OR command = 'a'", STEPS, "x").columns == ["command", "exit_code"]


@pytest.mark.parametrize(
    ("when", "gone"), [("any", {"t-good", "t-loop"}), ("all", set()), ("share", {"t-loop"})]
)  # fmt: skip
def test_steps_rule_trajectories_out(lake: Lake, when: str, gone: set[str]) -> None:
    EventLog(lake).append([*lakes.good_repair("t-good", task_id="1"), *lakes.looping("t-loop", task_id="2")], "b")
    chosen = select(lake, recipe({"steps": [{"where": "command = 'view'", "when": when, "share": 0.6}]}))
    assert set(chosen.rows.filter(pl.col("dropped").is_not_null())["trajectory_id"]) == gone


def test_a_critic_rules_out_and_whom_it_has_not_judged_is_left_out(lake: Lake) -> None:
    judged = lakes.good_repair("t-clean", task_id="1"), lakes.good_repair("t-leaks", task_id="2")
    unjudged = lakes.good_repair("t-unjudged", task_id="3")
    said = []
    for events, category in zip(judged, (None, "reads_grader"), strict=True):
        detections = [{"category": category}] if category else []
        said.append(lakes.verdict(lakes.actions(events)[0], "good", "leaks@1", severity=2, detections=detections))
    EventLog(lake).append([*judged[0], *judged[1], *unjudged, *said], "b")
    chosen = select(lake, recipe(exclude={"critic": "leaks@1"}))
    found = dict(chosen.rows.select("trajectory_id", "dropped").iter_rows())
    assert found == {
        "t-clean": None, "t-leaks": "exclude: reads_grader", "t-unjudged": "exclude: not judged by leaks@1",
    }  # fmt: skip


def test_a_selection_at_an_old_version_is_as_it_was(lake: Lake) -> None:
    EventLog(lake).append(lakes.good_repair("t-one", task_id="1"), "one")
    settings = recipe({"dedup": {"within": "everywhere"}})
    before = select(lake, settings)
    EventLog(lake).append([*lakes.good_repair("a-two", task_id="2"), *lakes.wasteful("t-new", task_id="3")], "two")
    refresh(lake)
    EventLog(lake).append([Event("retraction", "t-one", "demo", "human", {"reason": "taken down"})], "three")
    now = select(lake, settings)
    assert now.rows["trajectory_id"].to_list() == ["a-two", "t-new"]
    assert select(lake, settings, before.events_version).rows.equals(before.rows)
    refresh(lake)
    assert select(lake, settings).rows.equals(now.rows)


def test_a_dry_run_keeps_no_signatures(lake: Lake, tmp_path: Path) -> None:
    EventLog(lake).append([*lakes.good_repair("t-one", task_id="1"), *lakes.wasteful("t-two", task_id="2")], "b")
    (tmp_path / "c.yaml").write_text("source: {corpora: [demo]}\ncurate: {dedup: {near: 0.8, within: everywhere}}")
    ask = ["build", str(tmp_path / "c.yaml"), "--dry-run", "--lake", lake.uri]
    assert CliRunner().invoke(build_app(), ask).exit_code == 0
    assert lake.store.get(KEPT) is None
    select(lake, recipe({"dedup": {"near": 0.8, "within": "everywhere"}}))
    assert lake.store.get(KEPT) is not None, "a build keeps them"


def test_a_corpus_that_no_event_is_of_is_named_with_those_there_are(lake: Lake, tmp_path: Path) -> None:
    EventLog(lake).append([*lakes.good_repair("t-one"), *lakes.good_repair("t-two", corpus="other")], "b")
    with pytest.raises(UnknownName, match=r"unknown corpus 'dmeo'; allowed: demo, other\. Correct `source\.corpora`"):
        select(lake, recipe(corpora=("dmeo",)))
    assert select(lake, recipe(corpora=("demo", "ohter"))).missing == ("ohter",)
    (tmp_path / "c.yaml").write_text("source: {corpora: [demo, ohter]}")
    told = CliRunner().invoke(build_app(), ["build", str(tmp_path / "c.yaml"), "--dry-run", "--lake", lake.uri])
    assert "no event is of corpus ohter; there are: demo, other" in told.stderr
    EventLog(lake).append([Event("retraction", "t-two", "other", "human", {"reason": "taken down"})], "c")
    assert select(lake, recipe(corpora=("other",))).missing == (), "what was taken down was there"


def test_rollouts_that_broke_off_are_never_chosen(lake: Lake) -> None:
    events = lakes.good_repair("t-ok", task_id="1")
    broken = [e for e in lakes.good_repair("t-broken", task_id="1") if e.kind not in ("end", "outcome")]
    broken.append(Event("end", "t-broken", "demo", "environment", {"exit_status": "aborted"}))
    EventLog(lake).append([*events, *broken], "b")
    assert reasons(select(lake, recipe())) == {"finished: it broke off": 1}


def test_real_rollouts_are_chosen_built_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a sandbox through selection and build, by the command line; what is built is what was chosen."""
    lake = Lake(tmp_path / "lake")
    made = {
        "name": "pool", "world": {"functions": 1, "bugs_max": 1},
        "collect": {"corpus": "rollouts/pool", "policies": [
            {"kind": "oracle", "n_tasks": 2},
            {"kind": "noisy", "n_tasks": 4, "attempts": 2, "mistake_rate": 0.6, "recover_rate": 0.3}]},
        "source": {"corpora": ["rollouts/pool"], "where": "submitted AND regexp_matches(exit_status, '.')"},
        "curate": {"dedup": {"exact": "actions"}, "cap": {"per_task": 1}, "split": {"by": "task"}},
        "dataset": {"method": "all", "max_length": 2048, "held_out": 0.3}, "base_model": str(Path("jobs/base").absolute()),
    }  # fmt: skip
    file = tmp_path / "pool.yaml"
    file.write_text(json.dumps(made))
    monkeypatch.setenv("STEPWELL_LAKE", lake.uri)
    call = CliRunner()
    assert call.invoke(build_app(), ["rollout", str(file)]).exit_code == 0
    dry = json.loads(call.invoke(build_app(), ["build", str(file), "--dry-run", "--json"]).stdout)
    assert not lake.dataset_names(), "a dry run writes nothing"
    built = json.loads(call.invoke(build_app(), ["build", str(file), "--json"]).stdout)
    assert built["selection"] == dry["selection"]
    chosen = select(lake, load(file))
    rows = pl.DataFrame(lake.read("datasets/pool"))
    assert set(rows["trajectory_id"]) == set(kept(chosen)["trajectory_id"])
    assert dict(rows.select("trajectory_id", "split").iter_rows()) == dict(
        kept(chosen).select("trajectory_id", "split").iter_rows()
    )
    assert kept(chosen)["task_id"].is_unique().all()
    assert chosen.n_kept < len(chosen.rows), "some are dropped"
    told = {line["line"]: line.get("trajectories") for line in built["funnel"]}
    assert all(told[f"dropped: {why}"] == n for why, n in reasons(chosen).items())
    printed = call.invoke(build_app(), ["build", str(file), "--dry-run"]).stdout
    assert all(word in printed for word in ("stage", "cap", "held_out", "steps left"))
    assert verify(lake.read("datasets/pool"), Renderer.load("jobs/base"), lake).ok


@pytest.mark.skipif(not DATA.exists(), reason="the shared records are not here")
def test_imported_records_are_chosen(lake: Lake) -> None:
    result = CliRunner().invoke(
        build_app(), ["import", str(DATA / "swe-agent-traj"), str(DATA / "mini-swe-agent-1"), "--lake", lake.uri]
    )
    assert lake.version("events") is not None, result.output
    corpora = tuple(sorted(set(lake.read("events", columns=["corpus"]).column(0).to_pylist())))
    curate = {
        "steps": [{"where": "command LIKE '%rm -rf%'"}],
        "dedup": {"near": 0.8, "within": "everywhere"},
        "split": {"by": "repo"},
    }
    chosen = select(lake, recipe(curate, corpora))
    assert 0 < chosen.n_kept <= len(chosen.rows)
    assert chosen.rows.equals(select(lake, recipe(curate, corpora)).rows)
