"""Recipes: the one dial. A YAML file says what to learn from, how to mask it, what to train and how to evaluate.

`extends: NAME` takes another file's settings as defaults (deep merge); files whose name starts with `_` are only that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepwell.errors import RecipeError, UnknownName
from stepwell.ids import canonical, sha256

RECIPES = Path("jobs/recipes")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Exclude(_Part):
    """Leave out trajectories of which a critic says something this bad: one of the categories (none named: any).

    A trajectory that this critic has not judged is left out as well.
    """

    critic: str = "leaks@1"
    categories: tuple[str, ...] = ()
    severity: int = Field(default=2, ge=0, le=2)


class Source(_Part):
    """Which trajectories: corpora, a SQL condition over the columns of `trajectories`, and what a critic rules out."""

    corpora: tuple[str, ...]
    where: str = "true"
    exclude: Exclude | None = None


class Mask(_Part):
    """Which mask rule counts: the critic it believes, the labels it masks, and how resolved trajectories are treated.

    `student` masks the turns that were the student's where student and teacher are mixed.
    """

    rule: Literal["all", "srft", "random", "student"] = "all"
    critic: str = "rules@1"
    labels: tuple[Literal["good", "unnecessary", "mistake", "recover"], ...] = ("mistake",)
    resolved: Literal["full", "judged"] = "full"


class DatasetSettings(_Part):
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


class Train(_Part):
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


class World(_Part):
    """The embedded repair environment: difficulty of its tasks, the most turns of an episode, and the scaffold."""

    functions: int = 3
    bugs_min: int = 1
    bugs_max: int = 2
    p_visible: float = 0.8
    report: Literal["name", "line", "source"] = "source"
    drawn: bool = True
    one_token: bool = True
    max_turns: int = 14
    scaffold: Literal["bash", "tools"] = "bash"


class Prices(_Part):
    """US dollars for a million tokens: prompt, prompt read from the server's cache, completion."""

    input: float
    cached: float
    output: float


class Policy(_Part):
    """One policy: scripted `oracle` or `noisy`, `model` with a model directory, or `endpoint` with a model's name.

    `name` is recorded with its turns (default: the model). An endpoint is any server that speaks the OpenAI protocol at
    `base_url` (none: OpenAI's), its key in the environment variable `key_env`. `world` takes the place of the recipe's for
    its tasks: a base learns to copy from small modules first.
    """

    kind: Literal["oracle", "noisy", "model", "endpoint"]
    n_tasks: int = 0
    attempts: int = 1
    mistake_rate: float = 0.0
    recover_rate: float = 1.0
    name: str | None = None
    model: str | None = None
    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = 16
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    backend: Literal["transformers", "vllm"] = "transformers"
    prices: Prices | None = None
    world: World | None = None


class Tasks(_Part):
    """Tasks of a file in SWE-bench's columns (JSON lines or Parquet), worked on in an environment of mini-swe-agent.

    `environment` is its configuration, `environment_class` one of docker, singularity, bubblewrap and, with `unsafe`, local.
    `state_command` prints what the commands can change, for state hashes.
    """

    path: str
    suite: str
    split: str = "test"
    environment: dict[str, Any] = {}
    state_command: str | None = None
    unsafe: bool = False


class Collect(_Part):
    """Rollouts to record before anything is derived; on tasks of a file, or else on the embedded ones."""

    corpus: str
    seed: int = 0
    policies: tuple[Policy, ...]
    tasks: Tasks | None = None


class Critic(_Part):
    """A critic at the wheel: the step `rules`, a model behind an `endpoint`, or a `model` directory.

    `samples` candidates at `temperature`, of which the `first` readable or the `shortest` is delivered. `history`: which
    feedback it is reminded of (its `own`, what was `delivered`, or `none`).
    """

    kind: Literal["rules", "endpoint", "model"] = "rules"
    prompt: str = "steer-concise"
    model: str | None = None
    revision: str | None = None
    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = 16
    context: int = 32_768
    max_tokens: int = 4_096
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0
    structured: bool = False
    history: Literal["own", "delivered", "none"] = "own"
    select: Literal["first", "shortest"] = "first"
    tokenizer: str | None = None
    backend: Literal["transformers", "vllm"] = "transformers"
    prices: Prices | None = None


class Steer(_Part):
    """Steered rollouts on the same tasks in several arms (METHODS.md 1 and K20); see `stepwell.rollout.steering`.

    `prefix`: that many steps of the `off` arm are taken again before the other arms act on their own (K21).
    """

    corpus: str
    agent: Policy
    critic: Critic = Critic()
    arms: tuple[Literal["off", "live", "shadow", "placebo", "notice"], ...] = (
        "off",
        "live",
        "shadow",
        "placebo",
        "notice",
    )
    split: Literal["train", "eval"] = "eval"
    n_tasks: int = 50
    attempts: int = 1
    seed: int = 10_000
    k: int = Field(default=5, ge=1)
    notice_from: float | None = 2 / 3
    dedup: float | None = None
    history_chars: int = 1500
    prefix: int = Field(default=0, ge=0)


class Beta(_Part):
    """Probability that the teacher acts, by iteration; see `stepwell.rollout.mixing.Schedule`, which gives it its meaning."""

    name: Literal["paper", "linear", "exponential", "constant", "zero", "switch"] = "paper"
    start: float = Field(default=1.0, ge=0, le=1)
    step: float = Field(default=0.2, ge=0, le=1)
    rate: float = Field(default=0.8, ge=0, le=1)
    floor: float = Field(default=0.0, ge=0, le=1)
    turns: int = Field(default=30, ge=0)
    grow: int = Field(default=0, ge=0)


class Dagger(_Part):
    """Iterations of collecting with the policy so far, labelling by a teacher, and training on the labels (METHODS.md 4).

    Corpora, datasets and models of iteration i are called NAME-i. The `student` of iteration 1 is the recipe's base, then
    the model of the iteration before; its settings say how it is sampled. `n_tasks` fresh tasks an iteration. `relabel`:
    the teacher is asked again where it acts itself. `resamples` labels a state. Data of the iterations so far are put
    together as a `union`, only the `latest`, or the last `window` of them; `where` is an SQL condition on trajectories,
    such as `resolved`. Each model is trained from the one before, or from the base.
    """

    iterations: int = Field(default=5, ge=1)
    student: Policy = Policy(kind="model", temperature=0.7, top_p=0.9)
    teacher: Policy = Policy(kind="oracle")
    schedule: Beta = Beta()
    n_tasks: int = Field(default=512, ge=1)
    attempts: int = Field(default=1, ge=1)
    seed: int = 1
    relabel: bool = False
    resamples: int = Field(default=1, ge=1)
    aggregate: Literal["union", "latest", "window"] = "union"
    window: int = Field(default=2, ge=1)
    where: str = "true"
    train_from: Literal["previous", "base"] = "previous"
    evaluate: bool = True


class Problems(_Part):
    """Problems with tests: the first `n` of a file (see `stepwell.rollout.problems`), or embedded ones drawn by `seed`."""

    path: str | None = None
    split: Literal["train", "eval"] = "eval"
    n: int = Field(default=50, ge=1)
    seed: int = 10_000
    max_tests: int | None = Field(default=None, ge=1)


class RevisionArm(_Part):
    """One way to revise: a critic (a `model` as `settings` say, the generator it`self`, or scripted), `execution` feedback
    alone, or `none` (fresh samples). `guided` critics see a hint from the tests. Of `critiques` the majority's is answered,
    or `each` (groups for rewards). `stop`: judged Correct is final. `wrong` and `vague` are the noisy critic's.
    """

    name: str
    critic: Literal["model", "self", "oracle", "noisy", "placebo", "execution", "none"] = "model"
    settings: Critic = Critic(kind="endpoint", prompt="critique")
    guided: bool = False
    critiques: int = Field(default=1, ge=1)
    answer: Literal["majority", "each"] = "majority"
    stop: bool = False
    wrong: float = Field(default=0.0, ge=0, le=1)
    vague: float = Field(default=0.0, ge=0, le=1)


class Revision(_Part):
    """Critique-revision loops on problems with tests (METHODS.md 2); see `stepwell.rollout.revision`.

    `generator` samples `samples` first solutions a problem at its temperature and revises greedily. `rule`: a reward is 1
    when `all` tests pass, or their `mean`. `reveal`: the tests a hint may show. Tests are run again `reruns` times (K17).
    """

    corpus: str
    problems: Problems = Problems()
    generator: Policy
    samples: int = Field(default=5, ge=1)
    rounds: int = Field(default=1, ge=1)
    arms: tuple[RevisionArm, ...]
    rule: Literal["all", "mean"] = "all"
    reveal: Literal["visible", "all"] = "visible"
    reruns: int = Field(default=0, ge=0)
    seed: int = 0
    sandboxes: int = Field(default=4, ge=1)


class Evaluation(_Part):
    """Held-out tasks to roll the trained policy out on; `temperature` 0 is greedy."""

    suite: str = "repair-eval"
    n_tasks: int = 100
    attempts: int = 1
    temperature: float = 0.0
    seed: int = 10_000
    batch_size: int = 32
    max_new_tokens: int = 64
    backend: Literal["transformers", "vllm"] = "transformers"


class Architecture(_Part):
    """A Llama-style model made from scratch, with its own tokenizer (only `jobs.make_base` reads it)."""

    vocab_size: int = 1024
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 384
    context: int = 2048


class Recipe(_Part):
    """One experiment; each becomes a branch of the asset graph."""

    name: str
    title: str = ""
    source: Source | None = None
    mask: Mask = Mask()
    dataset: DatasetSettings | None = None
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
        raise RecipeError(f"recipe {str(file)!r}: {problems}. See stepwell/recipe.py for what is allowed.") from error


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
