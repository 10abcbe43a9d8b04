"""Settings of what acts: worlds, policies, critics at the wheel, and the runs that put them together.

Belongs here: sections of a recipe that a rollout reads. Does not belong here: reading recipes, and what is learnt from them
(`recipe`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stepwell.ids import unfit_corpus


def _fit(name: str | None) -> str | None:
    if name is not None and (why := unfit_corpus(name)) is not None:
        raise ValueError(why)
    return name


Corpus = Annotated[str, AfterValidator(_fit)]
"""A name under which events can be kept: better refused here than after a long run."""


class Part(BaseModel):
    """A section of a recipe: nothing but what is declared, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class World(Part):
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


class Prices(Part):
    """US dollars for a million tokens: prompt, prompt read from the server's cache, completion."""

    input: float
    cached: float
    output: float


class Policy(Part):
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


class Tasks(Part):
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


class Collect(Part):
    """Rollouts to record before anything is derived; on tasks of a file, or else on the embedded ones."""

    corpus: Corpus
    seed: int = 0
    policies: tuple[Policy, ...]
    tasks: Tasks | None = None


class Critic(Part):
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


class Steer(Part):
    """Steered rollouts on the same tasks in several arms (METHODS.md 1 and K20); see `stepwell.rollout.steering`.

    `prefix`: that many steps of the `off` arm are taken again before the other arms act on their own (K21).
    """

    corpus: Corpus
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


class Beta(Part):
    """Probability that the teacher acts, by iteration; see `stepwell.rollout.mixing.Schedule`, which gives it its meaning."""

    name: Literal["paper", "linear", "exponential", "constant", "zero", "switch"] = "paper"
    start: float = Field(default=1.0, ge=0, le=1)
    step: float = Field(default=0.2, ge=0, le=1)
    rate: float = Field(default=0.8, ge=0, le=1)
    floor: float = Field(default=0.0, ge=0, le=1)
    turns: int = Field(default=30, ge=0)
    grow: int = Field(default=0, ge=0)


class Dagger(Part):
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


class Problems(Part):
    """Problems with tests: the first `n` of a file (see `stepwell.rollout.problems`), or embedded ones drawn by `seed`."""

    path: str | None = None
    split: Literal["train", "eval"] = "eval"
    n: int = Field(default=50, ge=1)
    seed: int = 10_000
    max_tests: int | None = Field(default=None, ge=1)


class RevisionArm(Part):
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


class Revision(Part):
    """Critique-revision loops on problems with tests (METHODS.md 2); see `stepwell.rollout.revision`.

    `generator` samples `samples` first solutions a problem at its temperature and revises greedily. `rule`: a reward is 1
    when `all` tests pass, or their `mean`. `reveal`: the tests a hint may show. Tests are run again `reruns` times (K17).
    """

    corpus: Corpus
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


class Dpo(Part):
    """Preference training (METHODS.md 1.3, v2): the strength `beta` of staying near the base, and the weight `sft` of
    imitating the better reply beside preferring it (0: not at all)."""

    beta: float = Field(default=0.1, gt=0)
    sft: float = Field(default=0.0, ge=0)
    loss: Literal["sigmoid", "ipo", "hinge", "sigmoid_norm"] = "sigmoid"


class Engine(Part):
    """What samples critiques while a critic is trained: `transformers`, or vLLM `colocate` (on the same GPUs, of whose memory
    it may take the share `memory`, over `tensor_parallel` of them) or on a `server` at `url` (`trl vllm-serve`)."""

    kind: Literal["transformers", "colocate", "server"] = "transformers"
    memory: float = Field(default=0.3, gt=0, le=1)
    tensor_parallel: int = Field(default=1, ge=1)
    url: str | None = None


class Grpo(Part):
    """Training a critic on what its critiques are worth (CTRL stage II, METHODS.md 2.2).

    `group` critiques a solution, at `temperature`, of at most `max_new_tokens`; each is answered once by the frozen
    `generator`, greedily. A critique without a readable judgment is worth 0, else what `rule` says of the tests. `beta`: weight
    of the KL to the base. `scale` divides advantages by the deviation of their group (or not). `iterations`: optimiser passes
    over the same critiques. `sandboxes` jails at once. Everything is recorded in `corpus` (none: rollouts/RECIPE-trained).
    """

    generator: Policy
    group: int = Field(default=8, ge=2)
    beta: float = Field(default=0.001, ge=0)
    epsilon: float = Field(default=0.2, gt=0)
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "grpo"
    scale: Literal["group", "batch", "none"] = "group"
    iterations: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=768, ge=1)
    rule: Literal["all", "mean"] = "all"
    sandboxes: int = Field(default=4, ge=1)
    corpus: Annotated[str | None, AfterValidator(_fit)] = None
    engine: Engine = Engine()
