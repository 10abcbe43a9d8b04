"""The loop of DAgger: what each iteration is made from, what of it is done, and what is missing (METHODS.md 4).

Belongs here: names, inputs and order of the stages. Does not belong here: what needs a model in this process (`jobs`).
Iteration i collects the corpus rollouts/NAME-i with the policy so far, derives datasets/NAME-i and trains the model NAME-i.
A stage is done when its output was made from its present inputs, so a loop that was killed goes on where it stopped, and
a changed setting redoes what depends on it and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from schemas.kinds import UNFINISHED
from stepwell.batching import Crowd
from stepwell.contamination.planned import planned
from stepwell.curation.masks import mask_new, rule_of
from stepwell.curation.select import select
from stepwell.data_settings import Source
from stepwell.datasets.build import Built, build
from stepwell.drift import Drift, drift
from stepwell.errors import RecipeError, UsageError
from stepwell.evaluation.rows import Evaluated, evaluation_id, summarise
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.models import identity_of
from stepwell.recipe import Evaluation, Recipe
from stepwell.registry import local, trained
from stepwell.rendering import Renderer
from stepwell.rollout.collect import Wanted
from stepwell.rollout.labelling import counted
from stepwell.rollout.mixing import Mixing, Schedule
from stepwell.rollout.playing import Setting
from stepwell.rollout.record import run_again
from stepwell.rollout.runs import SCAFFOLDS, Maker, name_of, repairs
from stepwell.seals import seal_of
from stepwell.settings import Dagger

STAGES = ("collect", "label", "build", "train", "evaluate")
_CHANGES = ("action", "label", "mask", "outcome", "end", "retraction", "feedback", "notice")
"""Kinds of events that can change a dataset."""


class Loop:
    """The iterations of a recipe with a `dagger` section, in a lake; they are numbered from 1.

    Raises RecipeError for a recipe that cannot be iterated, and UsageError, with the next act, where an iteration is asked
    for whose inputs are not there.
    """

    def __init__(self, recipe: Recipe, lake: Lake) -> None:
        if recipe.dagger is None or recipe.dataset is None:
            raise RecipeError(f"recipe {recipe.name!r} has no `dagger` or no `dataset`; add both to iterate it.")
        if recipe.dagger.student.kind != "model":
            raise RecipeError(
                f"the student of {recipe.name!r} is {recipe.dagger.student.kind!r}; it must be a `model`."
            )
        if recipe.dagger.resamples > 1 and recipe.dagger.teacher.kind in ("oracle", "noisy"):
            raise RecipeError(f"the scripted teacher of {recipe.name!r} can label a state once; set `resamples: 1`.")
        if recipe.evaluation.sampling_seeds != (0,):
            raise RecipeError(
                f"`evaluation.sampling_seeds: {list(recipe.evaluation.sampling_seeds)}` of {recipe.name!r}; a loop evaluates "
                "under seed 0 alone. Leave it out; `python -m jobs.evaluate` takes the model of an iteration under several."
            )
        self.whole, self.lake, self.settings = recipe, lake, recipe.dagger
        self.dataset = recipe.dataset
        self._students: dict[int, tuple[str, str]] = {}

    def name(self, i: int) -> str:
        """Name of the dataset and the model of an iteration."""
        if i < 1:
            raise UsageError(f"iteration {i} of {self.whole.name!r}: they are numbered from 1.")
        return f"{self.whole.name}-{i}"

    def corpus(self, i: int) -> str:
        """Corpus of an iteration."""
        return f"rollouts/{self.name(i)}"

    def student(self, i: int) -> tuple[str, str]:
        """Where the policy that acts as the student is (`local` has it on this machine), and its id."""
        if i not in self._students:
            if i == 1:
                base = Path(self.whole.base_model)
                self._students[i] = (str(base), identity_of(base))
            else:
                row = self.model(i - 1)
                if row is None:
                    raise UsageError(
                        f"iteration {i} of {self.whole.name!r} begins with the model of iteration {i - 1}, which is not there "
                        f"for the present recipe and data; run: stepwell dagger {self.whole.name} --iterations {i - 1} (in "
                        f"Dagster: materialise partition {i - 1} of models/{self.whole.name})"
                    )
                self._students[i] = (row["path"], row["model_id"])
        return self._students[i]

    def base(self, i: int) -> str:
        """Where the model that is trained is."""
        return self.student(i)[0] if self.settings.train_from == "previous" else self.whole.base_model

    def run_id(self, i: int) -> str:
        """Names everything that decides what is collected; rollouts of another run of this iteration do not count."""
        s = self.settings
        drawn = [s.student, s.teacher, s.schedule, self.whole.world]
        parts = [p.model_dump(mode="json") for p in drawn]
        return f"{self.name(i)}@{digest(self.student(i)[1], parts, s.n_tasks, s.attempts, s.seed, s.relabel)[:12]}"

    def wanted(self, i: int) -> list[Wanted]:
        """The rollouts of an iteration: tasks of its own, nobody's before or after."""
        run = self.run_id(i)
        return repairs(
            self.whole.world, "train", self.settings.n_tasks, self.settings.seed + i - 1, corpus=self.corpus(i),
            policy=self.student(i)[1], run_id=run, attempts=self.settings.attempts, arm=run,
        )  # fmt: skip

    def setting(self, i: int, make: Maker) -> Callable[[Crowd], Setting]:
        """How an iteration is played: student and teacher mixed, the teacher asked in every state."""
        where, name = self.student(i)
        student = self.settings.student.model_copy(update={"model": local(self.lake, where), "name": name})
        mixing = Mixing(Schedule(**self.settings.schedule.model_dump()), i, self.settings.relabel)
        world = self.whole.world

        def made(crowd: Crowd) -> Setting:
            teacher = make(self.settings.teacher, crowd)
            scaffold = SCAFFOLDS[world.scaffold]()
            return Setting(make(student, crowd), world.max_turns, scaffold, teacher=teacher, mixing=mixing)

        return made

    @property
    def teacher(self) -> str:
        """The name labels are recorded under."""
        return name_of(self.settings.teacher)

    def used(self, i: int) -> range:
        """Iterations whose data an iteration learns from."""
        window = {"union": i, "latest": 1, "window": self.settings.window}[self.settings.aggregate]
        return range(max(1, i - window + 1), i + 1)

    def recipe(self, i: int) -> Recipe:
        """The plain recipe of an iteration's dataset and model.

        What has no part in them (how the model is evaluated, how many iterations follow) is left at its default.
        """
        runs = ", ".join(f"'{self.run_id(j)}'" for j in self.used(i))
        source = Source(
            corpora=tuple(self.corpus(j) for j in self.used(i)), where=f"({self.settings.where}) AND run_id IN ({runs})"
        )
        teacher = self.dataset.teacher or self.teacher
        changes: dict[str, Any] = {
            "name": self.name(i), "title": "", "source": source, "base_model": self.base(i),
            "dataset": self.dataset.model_copy(update={"teacher": teacher}), "evaluation": Evaluation(),
            "dagger": self.settings.model_copy(update={"iterations": i, "evaluate": Dagger().evaluate}),
            "seeds": self.whole.seeds[:1],
        }  # fmt: skip
        return self.whole.model_copy(update=changes)

    def evaluated_as(self, i: int) -> Recipe:
        """The recipe of an iteration as its model is evaluated."""
        return self.recipe(i).model_copy(update={"evaluation": self.whole.evaluation})

    def build(self, i: int) -> Built:
        """Derive and seal the dataset of an iteration; raises UsageError before all it rests on is collected and labelled."""
        for j in self.used(i):
            for stage in ("collect", "label"):
                if not self.done(j, stage):
                    raise UsageError(
                        f"datasets/{self.name(i)} rests on {self.corpus(j)}, for which `{stage}` is not done; run: stepwell "
                        f"dagger {self.whole.name} --iterations {i} (in Dagster: partition {j} of rollouts/{self.whole.name})"
                    )
        recipe = self.recipe(i)
        rule = rule_of(recipe.mask)
        if self.dataset.method != "dagger":
            mask_new(self.lake, rule)
        chosen = select(self.lake, recipe)
        renderer = Renderer.load(local(self.lake, recipe.base_model))
        return build(self.lake, recipe, renderer, str(rule), chosen.events_version, chosen=chosen.rows)

    def trajectories(self, i: int) -> list[str]:
        """The finished rollouts of an iteration, in the order wanted."""
        columns = ["trajectory_id", "kind", "end"]
        rows = EventLog(self.lake).read(corpora=[self.corpus(i)], kinds=["start", "end"], columns=columns).to_pylist()
        started = {r["trajectory_id"] for r in rows}
        ended = {r["trajectory_id"] for r in rows if r["end"] and r["end"]["exit_status"] not in UNFINISHED}
        found = []
        for w in self.wanted(i):
            rerun = 0
            while (stream := run_again(w.identity, rerun)) in started and stream not in ended:
                rerun += 1
            found += [stream] if stream in ended else []
        return found

    def seal(self, i: int) -> dict[str, str] | None:
        """The seal of an iteration's dataset when it was made by the present recipe."""
        sealed = seal_of(self.lake, f"datasets/{self.name(i)}")
        return sealed[1] if sealed and sealed[1].get("data_hash") == self.recipe(i).data_hash else None

    def model(self, i: int) -> dict[str, Any] | None:
        """The row of `models` that an iteration made from its present dataset."""
        seal = self.seal(i)
        if seal is None:
            return None
        recipe = self.recipe(i)
        return trained(
            self.lake, recipe=recipe.name, training_hash=recipe.training_hash, dataset_hash=seal["dataset_hash"],
            base_model=recipe.base_model,
        )  # fmt: skip

    def evaluation(self, i: int) -> str | None:
        """The id of the finished evaluation of an iteration's model (0: of the base), as the recipe has it now."""
        identity = self.student(1)[1] if i == 0 else (self.model(i) or {}).get("model_id")
        if identity is None:
            return None
        wanted = evaluation_id(self.whole, identity)
        rows = self.lake.read("evaluations", columns=["evaluation_id"], filters=pc.field("evaluation_id") == wanted)
        return wanted if len(rows) and len(rows) == self._attempts else None

    @cached_property
    def _attempts(self) -> int:
        """Attempts of an evaluation: `n_tasks` is 0 for all tasks of a file, and may be more than it has."""
        return len(planned(self.whole)) * self.whole.evaluation.attempts

    def done(self, i: int, stage: str) -> bool:
        """Whether a stage has been done from its present inputs."""
        if stage == "collect":
            return len(self.trajectories(i)) == self.settings.n_tasks * self.settings.attempts
        if stage == "label":
            only = self.trajectories(i)
            return counted(self.lake, self.corpus(i), self.teacher, self.settings.resamples, only).complete
        if stage == "build":
            seal = self.seal(i)
            return seal is not None and not self._changed(i, int(seal["events_version"]))
        if stage == "train":
            return self.model(i) is not None
        return not self.settings.evaluate or self.evaluation(i) is not None

    def _changed(self, i: int, since: int) -> bool:
        changed = set(EventLog(self.lake).changed(since, kinds=_CHANGES))
        return any(changed & set(self.trajectories(j)) for j in self.used(i))

    def version(self, i: int, stage: str) -> str:
        """What names the output of a stage that is done."""
        made = {"collect": self.run_id, "label": self.run_id, "evaluate": self.evaluation}
        if stage in made:
            return str(made[stage](i))
        return (self.seal(i) or {}).get("dataset_hash", "") if stage == "build" else (self.model(i) or {})["model_id"]

    def drift(self, i: int) -> Drift:
        """The figures of what an iteration collected."""
        return drift(EventLog(self.lake), self.trajectories(i), self.teacher)

    def rates(self, iterations: int) -> dict[str, Evaluated]:
        """Resolve rates on held-out tasks so far: of the base, then by iteration."""
        found: dict[str, Evaluated] = {}
        for i in range(iterations + 1):
            known = self.evaluation(i)
            if known is not None:
                found["base" if i == 0 else self.name(i)] = summarise(self.lake, known)
        return found

    def report(self, iterations: int) -> list[dict[str, Any]]:
        """One entry an iteration that is collected: its figures, the rows of its dataset, and its rate if evaluated."""
        told: list[dict[str, Any]] = []
        for i in range(1, iterations + 1):
            if not self.done(i, "collect"):
                break
            rows = self.lake.read(f"datasets/{self.name(i)}", columns=["row_id"]) if self.seal(i) else ()
            known = self.evaluation(i)
            rate = summarise(self.lake, known).metadata() if known else None
            told.append({"iteration": i, "corpus": self.corpus(i), "student": self.student(i)[1], "rows": len(rows),
                         "evaluation": rate, **self.drift(i).plain()})  # fmt: skip
            if self.model(i) is None:
                break
        return told

    def state(self, iterations: int) -> list[dict[str, Any]]:
        """What is done, stage by stage; from the first thing missing on, what follows is not."""
        told: list[dict[str, Any]] = []
        open_ = False
        for i in range(1, iterations + 1):
            for stage in STAGES:
                open_ = open_ or not self.done(i, stage)
                told.append({"iteration": i, "stage": stage, "done": not open_})
        return told
