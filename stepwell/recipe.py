"""Recipes: the one dial. A YAML file says what to learn from, how to mask it, what to train and how to evaluate.

`extends: NAME` takes another file's settings as defaults (deep merge); files whose name starts with `_` are only that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from stepwell.errors import RecipeError, UnknownName
from stepwell.ids import canonical, sha256
from stepwell.settings import Collect, Dagger, Part, Revision, Steer, World

RECIPES = Path("jobs/recipes")


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


class Mask(Part):
    """Which mask rule counts: the critic it believes, the labels it masks, and how resolved trajectories are treated.

    `student` masks the turns that were the student's where student and teacher are mixed.
    """

    rule: Literal["all", "srft", "random", "student"] = "all"
    critic: str = "rules@1"
    labels: tuple[Literal["good", "unnecessary", "mistake", "recover"], ...] = ("mistake",)
    resolved: Literal["full", "judged"] = "full"


class DatasetSettings(Part):
    """Method and limits; rows longer than `max_length` tokens are dropped and counted, never cut.

    A trajectory that says the same thing more than `max_repeats` times in a row is left out. `teacher` (none: the only one)
    and `labels` (of several for one state the `first`, or `all`) are for methods that learn from labels.
    """

    method: str
    max_length: int = 1024
    held_out: float = Field(default=0.1, ge=0, lt=1)
    max_repeats: int | None = Field(default=None, ge=1)
    teacher: str | None = None
    labels: Literal["first", "all"] = "first"


class Train(Part):
    """Trainer settings; `batch_size` is per device and step, `max_steps` 0 means whole epochs.

    `loss` is `chosen` (the labels of the dataset) or `text` (every token: language modelling, to make a base).
    """

    loss: Literal["chosen", "text"] = "chosen"
    epochs: float = 1.0
    learning_rate: float = 1e-4
    batch_size: int = 8
    gradient_accumulation: int = 1
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    scheduler: str = "cosine"
    packing: bool = False
    bf16: bool = False
    max_steps: int = 0
    save_steps: int = 200


class Evaluation(Part):
    """Held-out tasks to roll the trained policy out on; `temperature` 0 is greedy."""

    suite: str = "repair-eval"
    n_tasks: int = 100
    attempts: int = 1
    temperature: float = 0.0
    seed: int = 10_000
    batch_size: int = 32
    max_new_tokens: int = 64
    backend: Literal["transformers", "vllm"] = "transformers"


class Contamination(Part):
    """What no training row may repeat: the suites under `evaluations/`, and these files of tasks or corpora (`against`).

    Detectors in `off` are not run. Least shares that flag: `ngram` (13-grams), `minhash` (Jaccard), `cases` (input/output
    pairs), `files` (of gold patches). `repository` flags a task of the same repository with the same base `commit`, or
    created within `window_days`, or `any`. `before`: training tasks must be from before that date. `waive`: detector, or
    SUITE/detector -> why its rows may pass; they stay flagged.
    """

    against: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    ngram: float = Field(default=0.5, gt=0, le=1)
    minhash: float = Field(default=0.7, gt=0, le=1)
    cases: float = Field(default=0.5, gt=0, le=1)
    files: float = Field(default=0.5, gt=0, le=1)
    repository: Literal["off", "commit", "window", "any"] = "window"
    window_days: float = Field(default=30, ge=0)
    before: str | None = None
    waive: dict[str, str] = Field(default_factory=dict)


class Architecture(Part):
    """A Llama-style model made from scratch, with its own tokenizer (only `jobs.make_base` reads it)."""

    vocab_size: int = 1024
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 384
    context: int = 2048


class Recipe(Part):
    """One experiment; each becomes a branch of the asset graph."""

    name: str
    title: str = ""
    source: Source | None = None
    mask: Mask = Mask()
    dataset: DatasetSettings | None = None
    contamination: Contamination = Contamination()
    base_model: str = "jobs/base"
    architecture: Architecture = Architecture()
    train: Train = Train()
    world: World = World()
    collect: Collect | None = None
    revision: Revision | None = None
    steer: Steer | None = None
    dagger: Dagger | None = None
    evaluation: Evaluation = Evaluation()
    seeds: tuple[int, ...] = (0,)

    @property
    def hash(self) -> str:
        """sha256 of every resolved setting."""
        return sha256(canonical(self.model_dump(mode="json")))

    @property
    def dataset_table(self) -> str:
        """Name of the dataset's table in the lake."""
        return f"datasets/{self.name}"


def load(path: str | Path) -> Recipe:
    """Read a recipe file, or a recipe by name from `jobs/recipes`; raises RecipeError listing every problem."""
    file = Path(path)
    if file.suffix not in (".yaml", ".yml"):
        file = RECIPES / f"{path}.yaml"
    if not file.is_file():
        raise UnknownName("recipe", str(path), names(), f"Name a YAML file or add {file}.")
    settings = _resolve(file)
    try:
        return Recipe.model_validate({"name": file.stem, **settings})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise RecipeError(
            f"recipe {str(file)!r}: {problems}. See stepwell/recipe.py and stepwell/settings.py for what is allowed."
        ) from error


def names(folder: Path = RECIPES) -> list[str]:
    """Recipes in a folder by name, those starting with `_` left out."""
    return sorted(p.stem for p in folder.glob("*.yaml") if not p.stem.startswith("_"))


def _resolve(file: Path) -> dict[str, Any]:
    settings = yaml.safe_load(file.read_text()) or {}
    if not isinstance(settings, dict):
        raise RecipeError(f"recipe {str(file)!r} is a {type(settings).__name__}; it must be a mapping of settings.")
    base = settings.pop("extends", None)
    if base is None:
        return settings
    parent = file.parent / f"{base}.yaml"
    if not parent.is_file():
        raise UnknownName(
            "recipe to extend", base, [p.stem for p in file.parent.glob("*.yaml")], f"Asked for by {file}."
        )
    return _merge(_resolve(parent), settings)


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
