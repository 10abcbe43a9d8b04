"""Judging with a model directory in this process, by the vLLM offline engine: no server, prefixes cached.

    python -m jobs.judge --prompt steer-concise --model DIR --lake ./lake --every 5

What is judged, kept and resumed is as with `stepwell judge`; this only answers the calls.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

from jobs.report import Reporter, command, reporter
from jobs.vllm_policy import engine, go_where_vllm_is
from stepwell.chat import BatchBackend, Call, Completion, Failure, yes_of
from stepwell.critics import prompts
from stepwell.critics.judging import Report, judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.streams import Counter
from stepwell.ids import storable
from stepwell.lake import Lake
from stepwell.rendering import Renderer

_TOP = 20  # most likely tokens looked at for YES and NO


class VllmCritic:
    """The engine as a batch of calls in, completions out; prompts are the renderer's token ids."""

    def __init__(self, directory: str) -> None:
        self.renderer = Renderer.load(directory)
        self.llm = engine(directory, 0)
        self.context: int = self.llm.llm_engine.model_config.max_model_len

    def __call__(self, calls: Sequence[Call]) -> list[Completion | Failure]:
        """Answer many calls at once, in order."""
        prompts = [self.renderer.prompt_ids(list(call.messages)) for call in calls]
        answers: list[Completion | Failure] = [
            Failure("context", f"{len(p)} tokens and a reply of {c.max_tokens}; the model holds {self.context}")
            for p, c in zip(prompts, calls, strict=True)
        ]
        fits = [i for i, c in enumerate(calls) if len(prompts[i]) + c.max_tokens <= self.context]
        started = time.monotonic()
        asked = [{"prompt_token_ids": prompts[i]} for i in fits]
        outputs = self.llm.generate(asked, [self._sampling(calls[i]) for i in fits], use_tqdm=False)
        latency = (time.monotonic() - started) / max(len(fits), 1)
        for i, output in zip(fits, outputs, strict=True):
            said = output.outputs[0]
            answers[i] = Completion(
                text=storable(said.text),
                tokens_in=len(prompts[i]),
                tokens_out=len(said.token_ids),
                cache_read=output.num_cached_tokens,
                latency_s=round(latency, 6),
                finish=str(said.finish_reason),
                yes=yes_of(_tokens(said)) if calls[i].yes_no else None,
                at=round(time.time(), 6),
            )
        return answers

    def _sampling(self, call: Call) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        schema = None if call.schema is None else StructuredOutputsParams(json=dict(call.schema))
        return SamplingParams(
            temperature=call.temperature,
            max_tokens=call.max_tokens,
            seed=call.seed,
            structured_outputs=schema,
            stop_token_ids=self.renderer.closing_ids,
            logprobs=_TOP if call.yes_no else None,
        )


def _tokens(said: Any) -> list[dict[str, Any]]:
    """The engine's likely tokens, place by place, in the words of the OpenAI protocol."""
    places = []
    for token, likely in zip(said.token_ids, said.logprobs or (), strict=False):
        options = [{"token": o.decoded_token or "", "logprob": o.logprob} for o in likely.values()]
        places.append({"token": likely[token].decoded_token or "", "top_logprobs": options})
    return places


def run(critic: ModelCritic, lake: Lake, batch: int, corpora: Sequence[str] | None, report: Reporter) -> Report:
    """Judge what is missing with the model directory the critic names; returns what was done."""
    backend = BatchBackend(VllmCritic(critic.model), batch)
    shown = 0

    def progress(done: Report) -> None:
        nonlocal shown
        if done.n_done > shown:
            shown = done.n_done
            report.log(f"{shown}/{done.n_trajectories} trajectories, {done.n_verdicts} verdicts")

    return judge(lake, critic, backend, corpora=corpora, progress=progress)


def main() -> None:
    """Read the command line, judge, report."""
    parser = argparse.ArgumentParser(prog="python -m jobs.judge", description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", required=True, help="name of a prompt, or a YAML file")
    parser.add_argument("--model", required=True, help="model directory")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--corpus", action="append", help="only this corpus; may be repeated")
    parser.add_argument("--every", type=int, default=5, help="steps between two judgments (steer prompts)")
    parser.add_argument(
        "--history", choices=("own", "delivered", "none"), default="own", help="feedback the critic sees"
    )
    parser.add_argument("--samples", type=int, default=1, help="candidates per request")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: the most likely reply")
    parser.add_argument("--max-tokens", type=int, default=1024, help="longest reply, in tokens")
    parser.add_argument("--context", type=int, default=8192, help="tokens the model can hold, reply included")
    parser.add_argument("--structured", action="store_true", help="have the engine write JSON of a fixed schema")
    parser.add_argument("--batch", type=int, default=64, help="trajectories judged side by side")
    options = parser.parse_args()
    go_where_vllm_is("jobs.judge", "judging in process")
    with reporter() as report:
        critic = ModelCritic(
            prompts.load(options.prompt), options.model, k=options.every, context=options.context,
            max_tokens=options.max_tokens, temperature=options.temperature, samples=options.samples,
            structured=options.structured, history=options.history, counter=Counter.of(options.model),
        )  # fmt: skip
        done = run(critic, Lake(options.lake), options.batch, options.corpus, report)
        figures = {
            "critic": done.critic,
            "trajectories": done.n_done,
            "verdicts": done.n_verdicts,
            "calls": done.n_calls,
        }
        figures |= {"unparseable": done.n_unparseable, "tokens_in": done.tokens_in, "cached": done.cache_read}
        report.log(f"{done.critic}: {figures}")
        report.done(figures | {"not_judged": dict(done.not_judged)}, done.critic)


if __name__ == "__main__":
    command(main)
