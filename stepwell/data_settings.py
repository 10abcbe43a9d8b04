"""Settings of what is learnt from: sources, how they are curated, mask rules, dataset methods and their parameters.

Belongs here: sections of a recipe that derivations read. Does not belong here: reading recipes (`recipe`), and what acts
(`settings`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stepwell.settings import Part, Problems


class Exclude(Part):
    """Leave out trajectories of which a critic says something this bad: one of the categories (none named: any).

    A trajectory that this critic has not judged is left out as well.
    """

    critic: str = "leaks@1"
    categories: tuple[str, ...] = ()
    severity: int = Field(default=2, ge=0, le=2)


class Source(Part):
    """Which trajectories: corpora, a SQL condition over the columns of `trajectories`, and what a critic rules out."""

    corpora: tuple[str, ...]
    where: str = "true"
    exclude: Exclude | None = None


class Steps(Part):
    """Leave out trajectories with steps like this: a SQL condition over the columns of `steps`.

    A trajectory goes when `any` of its steps matches, when `all` do, or from a `share` of them on.
    """

    where: str
    when: Literal["any", "all", "share"] = "any"
    share: float = Field(default=0.5, gt=0, le=1)


class Length(Part):
    """Least and most steps of a trajectory; none: no limit."""

    least: int = Field(default=1, ge=1)
    most: int | None = Field(default=None, ge=1)


class Difficulty(Part):
    """Keep tasks of which a share between `low` and `high` of the attempts is resolved; `inclusive` says which ends count.

    Only graded attempts count, and of these all in the source corpora, whatever else is left out; tasks with fewer than
    `attempts` of them go.
    """

    low: float = Field(default=0.0, ge=0, le=1)
    high: float = Field(default=1.0, ge=0, le=1)
    inclusive: Literal["none", "low", "high", "both"] = "none"
    attempts: int = Field(default=2, ge=1)


class Dedup(Part):
    """Of trajectories that are alike keep one: the resolved before others, then the shortest, then the smallest id.

    `exact`: the same actions in the same order, or the same `conversation` (what was said, thought and shown). `near`: at
    least this Jaccard of runs of five words of the commands, as MinHash estimates it (standard error at most .05). Looked
    for within a task, or everywhere.
    """

    exact: Literal["off", "actions", "conversation"] = "actions"
    near: float | None = Field(default=None, ge=0.5, le=1)
    within: Literal["task", "everywhere"] = "task"


class Cap(Part):
    """At most this many trajectories a task: those `resolved` and then the shortest, the `shortest`, or any at `random`."""

    per_task: int = Field(ge=1)
    prefer: Literal["resolved", "shortest", "random"] = "resolved"


class Balance(Part):
    """The share of graded trajectories that is resolved; the larger side is drawn from, ungraded ones are left alone."""

    resolved: float = Field(default=0.5, gt=0, lt=1)


class Mix(Part):
    """Shares of corpora (or agents) among the trajectories, in any unit; nothing is ever taken twice.

    What has no weight, or 0, is left out.
    """

    by: Literal["corpus", "agent"] = "corpus"
    weights: dict[str, float] = Field(min_length=1)


class Split(Part):
    """What is held out together: all attempts at a task, or at the tasks of a repository.

    Of the tasks (repositories) the share that `dataset.held_out` says, and those named in `held_out`.
    """

    by: Literal["task", "repo"] = "task"
    held_out: tuple[str, ...] = ()


class Curate(Part):
    """What is chosen among the trajectories of the source, stage by stage in this order; see docs/curation.md."""

    steps: tuple[Steps, ...] = ()
    length: Length | None = None
    difficulty: Difficulty | None = None
    dedup: Dedup | None = None
    cap: Cap | None = None
    balance: Balance | None = None
    mix: Mix | None = None
    split: Split = Split()
    seed: int = 0


class Mask(Part):
    """Which mask rule counts: the critic it believes, the labels it masks, and how resolved trajectories are treated.

    `student` masks the turns that were the student's where student and teacher are mixed. `human` believes people: the
    annotator that `critic` names (`human/NAME`), or the `majority` of all.
    """

    rule: Literal["all", "srft", "random", "student", "human"] = "all"
    critic: str = "rules@1"
    labels: tuple[Literal["good", "unnecessary", "mistake", "recover"], ...] = ("mistake",)
    resolved: Literal["full", "judged"] = "full"


class Critiques(Part):
    """Which verdicts a critic learns from, and what it is asked (methods critic_sft, critic_dpo, ctrl_sft, ctrl_rl, verifier).

    `critic`: the policy whose verdicts count (none: every critic's). Verdicts of models are learnt under the prompt they were
    asked with; those of rules and scripted critics under `prompt`, every `k` steps, reminded of `history`, within
    `prompt_tokens` (estimated). `target`: the reply as it was said (`raw`), or in the grammar's `canonical` form, which
    critics without words need. `resolved_only` is known to make worse critics (METHODS.md 1.4). `too_long`: oldest turns are
    dropped whole from what exceeds `max_length` (`shorten`), or the row is (`drop`).
    """

    critic: str | None = None
    prompt: str | None = None
    k: int = Field(default=5, ge=1)
    history: Literal["own", "delivered", "none"] = "own"
    prompt_tokens: int = Field(default=28_672, ge=64)
    target: Literal["raw", "canonical"] = "raw"
    resolved_only: bool = False
    too_long: Literal["shorten", "drop"] = "shorten"


class Preference(Part):
    """How candidates for one state are ranked (critic_dpo): by recorded `reward`, or by `agreement` with `reference`.

    `ranker` is the policy whose reward events count (none: every one's). `reference` is the policy of verdicts, people's for
    example, or `outcome` (tests). `pairs`: the best with the worst, or `all` that differ by more than `margin`.
    """

    rank: Literal["reward", "agreement"] = "reward"
    ranker: str | None = None
    reference: str = "outcome"
    pairs: Literal["best_worst", "all"] = "best_worst"
    margin: float = Field(default=0.0, ge=0)


class Synthesis(Part):
    """What of guided critiques is learnt (ctrl_sft), and which solutions are asked about (ctrl_rl; METHODS.md 2).

    `keep_failed`: critiques whose revision did not pass, or that were never answered, as well (CTRL's script did so).
    `hint_leaks` and `solution_leaks`: `drop` critiques that give these away, or `keep` them; a solution shows when at least
    the share `similarity` of the revision's new lines stands in the critique. `rounds`: the `first` solution, or `all`.
    `problems`: where the tests are, copied into rows, as the log holds hashes of tests only.
    """

    keep_failed: bool = False
    hint_leaks: Literal["drop", "keep"] = "drop"
    solution_leaks: Literal["drop", "keep"] = "drop"
    similarity: float = Field(default=0.5, gt=0, le=1)
    rounds: Literal["first", "all"] = "first"
    problems: Problems | None = None


class DatasetSettings(Part):
    """Method and limits; rows longer than `max_length` tokens are dropped and counted, never cut inside a turn.

    A trajectory that says the same thing more than `max_repeats` times in a row is left out. `teacher` (none: the only one)
    and `labels` (of several for one state the `first`, or `all`) are for methods that learn from labels. `per_task`: at most
    that many rows a task. `balance`: in each split as many rows that say correct as that say incorrect. Both choose by a hash
    of the row.
    """

    method: str
    max_length: int = 1024
    held_out: float = Field(default=0.1, ge=0, lt=1)
    max_repeats: int | None = Field(default=None, ge=1)
    teacher: str | None = None
    labels: Literal["first", "all"] = "first"
    per_task: int | None = Field(default=None, ge=1)
    balance: Literal["none", "judgment"] = "none"
    critiques: Critiques = Critiques()
    preference: Preference = Preference()
    synthesis: Synthesis = Synthesis()
