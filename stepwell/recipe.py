"""Recipes: the one dial. A YAML file says what to learn from, how to mask it, what to train and how to evaluate.

`extends: NAME` takes another file's settings as defaults (deep merge); files whose name starts with `_` are only that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from stepwell.data_settings import (
    Curate,
    DatasetSettings,
    Mask,
    Source,
)
from stepwell.errors import RecipeError, UnknownName
from stepwell.ids import canonical, sha256
from stepwell.settings import Collect, Dagger, Dpo, Grpo, Part, Revision, Steer, Tasks, World

RECIPES = Path("jobs/recipes")


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("each seed once: the same one gives the same run")
    return seeds


Seeds = Annotated[tuple[int, ...], AfterValidator(_distinct)]


class Lora(Part):
    """Low-rank adapters in place of training every weight; `merge` adds them to the weights on saving."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0, ge=0, lt=1)
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    merge: bool = True


class Train(Part):
    """Trainer settings; `batch_size` is per device and step, `max_steps` 0 means whole epochs.

    `loss` is `chosen` (the labels of the dataset) or `text` (every token: language modelling, to make a base). Its mean is
    over the trained tokens of a step (`normalisation: token`), or over rows of each row's own mean (`sequence`).
    `eval_steps` 0 evaluates the held-out split at the end only; with `patience`, training stops after so many evaluations
    without a lower loss, and the best checkpoint is kept. `initial`: the model of the lake to begin with, by name or id, in
    place of the base (none); its tokenizer must be the base's. `dpo` is for datasets of pairs, `grpo` for those of prompts.
    """

    loss: Literal["chosen", "text"] = "chosen"
    normalisation: Literal["token", "sequence"] = "token"
    epochs: float = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=1e-4, gt=0)
    batch_size: int = Field(default=8, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    scheduler: str = "cosine"
    lora: Lora | None = None
    packing: bool = False
    gradient_checkpointing: bool = False
    attention: Literal["sdpa", "eager", "flash"] = "sdpa"
    bf16: bool = False
    max_steps: int = Field(default=0, ge=0)
    save_steps: int = Field(default=200, ge=1)
    eval_steps: int = Field(default=0, ge=0)
    patience: int = Field(default=0, ge=0)
    initial: str | None = None
    dpo: Dpo = Dpo()
    grpo: Grpo | None = None


class Evaluation(Part):
    """Held-out tasks to roll the trained policy out on; `temperature` 0 is greedy.

    `tasks` are the first `n_tasks` of a file (0: all), or else embedded ones drawn by `seed`, whatever the `sampling_seeds`:
    each of these is an evaluation of its own on the same tasks. `batch_size` environments are in flight. A model is computed
    here, on `tensor_parallel` devices (vllm) a copy and `data_parallel` copies, or asked for by name at an `endpoint`: any
    server that speaks the OpenAI protocol at `base_url` (none: OpenAI's), its key in the environment variable `key_env`.
    """

    suite: str = "repair-eval"
    n_tasks: int = Field(default=100, ge=0)
    attempts: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = 10_000
    sampling_seeds: Seeds = Field(default=(0,), min_length=1)
    tasks: Tasks | None = None
    batch_size: int = Field(default=32, ge=1)
    max_new_tokens: int = 64
    backend: Literal["transformers", "vllm", "endpoint"] = "transformers"
    tensor_parallel: int = Field(default=1, ge=1)
    data_parallel: int = Field(default=1, ge=1)
    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"


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


_NOT_DATA = (
    "title", "base_model", "architecture", "train", "world", "collect", "steer", "dagger", "evaluation", "trial", "seeds",
)  # fmt: skip
"""Settings that no row of a dataset depends on, given the events; a setting that is not named here counts."""


class Recipe(Part):
    """One experiment; each becomes a branch of the asset graph.

    `trial`: loops on held-out problems that a trained critic is evaluated in, as the arms whose critic is a model unnamed.
    """

    name: str
    title: str = ""
    source: Source | None = None
    curate: Curate | None = None
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
    trial: Revision | None = None
    seeds: Seeds = (0,)

    @property
    def hash(self) -> str:
        """sha256 of every resolved setting."""
        return sha256(canonical(self.model_dump(mode="json")))

    @property
    def data_hash(self) -> str:
        """sha256 of the settings that decide the training set: all but those of what is done with it, and how it came to be.

        The tokenizer and template of the base model are held by the seal, not its name; reasons why leaks may pass change
        no row.
        """
        revision = Revision.model_fields.keys() - {"problems"}  # these say where the tests of a row are
        apart = {"contamination": {"waive"}, "revision": revision} | dict.fromkeys(_NOT_DATA, True)
        return sha256(canonical(self.model_dump(mode="json", exclude=apart)))

    @property
    def training_hash(self) -> str:
        """sha256 of the settings that, with the dataset's content, the base model and the seed, decide the weights."""
        return sha256(canonical(self.model_dump(mode="json", include={"train", "dataset"})))

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
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {_told(e)} (got {e['input']!r})" for e in error.errors())
        raise RecipeError(
            f"recipe {str(file)!r}: {problems}. See stepwell/recipe.py and stepwell/settings.py for what is allowed."
        ) from error


def _told(problem: Any) -> str:
    """What is wrong with a setting; of one that is not declared, which are declared there."""
    if problem["type"] != "extra_forbidden":
        return str(problem["msg"])
    part: type[BaseModel] = Recipe
    for key in problem["loc"][:-1]:
        if isinstance(key, str) and key in part.model_fields:
            part = next(_parts(part.model_fields[key].annotation), part)
    return f"no setting; allowed: {', '.join(sorted(part.model_fields))}"


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a setting can be, found inside optional ones and lists."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)


def names(folder: Path = RECIPES) -> list[str]:
    """Recipes in a folder by name, those starting with `_` left out."""
    return sorted(p.stem for p in folder.glob("*.yaml") if not p.stem.startswith("_"))


class _Words(yaml.SafeLoader):
    """YAML in which `off` is a word and a date is text, as in version 1.2."""


_Words.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] not in ("bool", "timestamp")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Words.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))


def _resolve(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.load(file.read_text(encoding="utf-8"), _Words) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        told = " ".join(str(error).split())
        raise RecipeError(f"recipe {str(file)!r} is no YAML in UTF-8: {told}. Correct it there.") from error
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
