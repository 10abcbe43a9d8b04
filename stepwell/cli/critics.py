"""The command `judge`: by deterministic rules in this process, or with a model behind an OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepwell.chat import Backend, OpenAIBackend
from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, open_lake, output, progress_bar
from stepwell.critics import prompts
from stepwell.critics.cassettes import Player, Recorder
from stepwell.critics.context import History
from stepwell.critics.judging import Report, judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.planning import Plan, plan
from stepwell.critics.rules import POLICY
from stepwell.critics.run import judge_new
from stepwell.critics.streams import ESTIMATE, Counter
from stepwell.errors import StepwellError, UsageError
from stepwell.lake import Lake
from stepwell.spending import Prices

_OF_RULES = ("critic", "lake", "json")
"""Options that mean something without a model."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("judge")(judge_command)


def judge_command(
    given: typer.Context,
    critic: Annotated[str, typer.Option("--critic", help="Critic that runs in this process.")] = POLICY,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Judge with a model: name of a prompt, or a YAML file.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model as the server names it.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Revision of the model, recorded.")] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Server, such as http://127.0.0.1:8000/v1; key in $OPENAI_API_KEY.")
    ] = None,
    every: Annotated[int, typer.Option("--every", min=1, help="Steps between two judgments (steer prompts).")] = 5,
    history: Annotated[
        str, typer.Option("--history", help="Feedback shown to the critic: own, delivered or none.")
    ] = "own",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Candidates per request.")] = 1,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="0: the most likely reply.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first candidate.")] = 0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest reply, in tokens.")] = 4096,
    context: Annotated[int, typer.Option("--context", help="Tokens the model can hold, reply included.")] = 32768,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Model directory to count tokens with; default: characters / 4.")
    ] = None,
    structured: Annotated[
        bool, typer.Option("--structured", help="Ask the server for JSON of a fixed schema.")
    ] = False,
    text_limit: Annotated[
        int | None,
        typer.Option(
            "--text-limit", min=0, help="Most characters of its free texts; default: by --max-tokens; 0: any."
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Calls under way at once.")] = 16,
    rpm: Annotated[float | None, typer.Option("--rpm", min=0.001, help="Most requests a minute.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait for a reply.")] = 300.0,
    max_cost: Annotated[float | None, typer.Option("--max-cost", min=0, help="Most US dollars to spend now.")] = None,
    price_in: Annotated[float | None, typer.Option("--price-in", help="US dollars per million prompt tokens.")] = None,
    price_cached: Annotated[
        float | None, typer.Option("--price-cached", help="The same for cached ones; default: as --price-in.")
    ] = None,
    price_out: Annotated[float | None, typer.Option("--price-out", help="The same for reply tokens.")] = None,
    corpus: Annotated[list[str] | None, typer.Option("--corpus", help="Only this corpus; may be repeated.")] = None,
    record: Annotated[Path | None, typer.Option("--record", help="Also keep every reply in this cassette.")] = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", help="Answer from this cassette and ask no server.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count calls, tokens and cost; call nothing.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Judge every trajectory that is new or changed: by rules, or with a model when a prompt is given.

    Example: `stepwell judge --critic rules@1`

    Example: `stepwell judge --prompt steer-concise --model Qwen3-8B --base-url http://127.0.0.1:8000/v1 --every 5`
    """
    opened = open_lake(lake)
    if prompt is None:
        if asked_for := [name for name in given.params if name not in _OF_RULES and _is_given(given, name)]:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in asked_for)
            raise UsageError(
                f"{named} without --prompt; allowed for a critic of this process: --critic. Give --prompt too."
            )
        _by_rules(opened, critic, json)
        return
    if record is not None and replay is not None:
        raise UsageError("--record and --replay are both given; a cassette is made or played, give one of them.")
    if model is None:
        raise UsageError("no --model; name the model as the server does.")
    asked = ModelCritic(
        prompts.load(prompt), model, revision, every, context, max_tokens, temperature, samples, seed, structured, text_limit,
        _history(history), counter=Counter.of(tokenizer) if tokenizer else ESTIMATE,
        prices=_prices(price_in, price_cached, price_out),
    )  # fmt: skip
    if dry_run:
        _show_plan(plan(opened, asked, corpus), json)
        return
    backend: Backend
    if replay is not None:
        backend = Player(replay, model)
    else:
        backend = OpenAIBackend(model, base_url, concurrency=concurrency, rpm=rpm, timeout=timeout)
        backend = backend if record is None else Recorder(record, model, backend)
    with progress_bar() as progress:
        bar = progress.add_task("trajectories")

        def update(done: Report) -> None:
            what = f"{done.n_verdicts} verdicts, {done.n_calls} calls" + (f", ${done.cost_usd:.4f}" if price_in else "")
            progress.update(bar, completed=done.n_done, total=done.n_trajectories, description=what)

        report = judge(opened, asked, backend, corpora=corpus, max_cost=max_cost, progress=update)
    _show_report(report, json)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _by_rules(lake: Lake, critic: str, json: bool) -> None:
    report = judge_new(lake, critic)
    if json:
        emit(report.__dict__)
    else:
        counts = ", ".join(f"{n} {what}" for what, n in report.counts().items())
        output.print(f"{critic}: {counts}, at events version {report.events_version}", highlight=False)


def _history(name: str) -> History:
    for known in ("own", "delivered", "none"):
        if name == known:
            return known
    raise UsageError(f"unknown history {name!r}; allowed: own, delivered, none. Choose one of these.")


def _prices(price_in: float | None, cached: float | None, out: float | None) -> Prices | None:
    if price_in is None and cached is None and out is None:
        return None
    if price_in is None or out is None:
        raise UsageError("prices need both --price-in and --price-out, in US dollars per million tokens.")
    return Prices(price_in, price_in if cached is None else cached, out)


def _show_plan(found: Plan, json: bool) -> None:
    if json:
        emit(found.__dict__)
        return
    lines = [
        f"{found.critic}: {found.n_calls} calls for {found.n_trajectories} trajectories "
        f"({found.n_known} replies are in the log, {found.n_cached} in the cache)",
        f"prompt tokens: {found.prompt_tokens} sent, {found.computed_tokens} to compute where prefixes are kept",
        f"reply tokens: {found.most_reply_tokens} at most",
    ]
    if found.cost_prompts_usd is not None:
        lines.append(f"cost: ${found.cost_prompts_usd:.4f} for prompts, ${found.cost_most_usd:.4f} at most altogether")
    lines += [f"not judged, {n}: {reason}" for reason, n in found.not_judged.items()]
    output.print("\n".join(lines), highlight=False, markup=False)


def _show_report(report: Report, json: bool) -> None:
    if json:
        emit(report.__dict__ | {"complete": report.complete})
    else:
        tokens = f"{report.tokens_in} tokens in ({report.cache_read} cached), {report.tokens_out} out"
        lines = [
            f"{report.critic}: {report.n_verdicts} verdicts ({report.n_unparseable} replies unparseable), "
            f"{report.n_superseded} superseded, at events version {report.events_version}",
            f"{report.n_calls} calls, {tokens}, ${report.cost_usd:.4f}; {report.n_known} replies were in the log, "
            f"{report.n_cached} in the cache",
            *(f"not judged, {n}: {reason}" for reason, n in report.not_judged.items()),
        ]
        output.print("\n".join(lines), highlight=False, markup=False)
    if not report.complete:
        reasons = [f"{n} calls failed ({reason})" for reason, n in report.failed.items()]
        why = "; ".join([*([report.stopped] if report.stopped else []), *reasons])
        raise StepwellError(f"not everything is judged: {why}. What is done is kept; run the same command to go on.")
