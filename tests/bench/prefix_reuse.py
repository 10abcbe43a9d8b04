"""Judging every step of a trajectory: prompt tokens an engine computes with ordered, growing prefixes and with none kept.

    python -m tests.bench.prefix_reuse [TRAJECTORIES] [OBSERVATION_CHARACTERS] [PROMPT_TOKENS]

Requests are those of a real critic over recorded trajectories of 40 steps or more (../shared/data), with long observations
cut. Each is answered by a real vLLM server twice: in the order of the steps with prefix caching, and shuffled without it.
The model has random weights and a context of 32k: what is counted does not depend on what it says. Tokens are the engine's
own counters. The goal is at least five times fewer; a line per arm, then the ratio.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from jobs.make_base import start_from_scratch
from jobs.vllm_policy import vllm_python
from stepwell.critics.context import Request, Settings, build, points
from stepwell.critics.prompts import load
from stepwell.critics.streams import COLUMNS, ESTIMATE, Counter, Stream, streams
from stepwell.importers.run import import_paths
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Architecture, Recipe
from stepwell.rendering import Renderer
from tests.vllm_server import Server, serving

SHARED = Path(__file__).parents[3] / "shared" / "data"
STEPS, CONTEXT, CLIENTS = 40, 32_768, 4
ARCHITECTURE = Architecture(vocab_size=4096, hidden_size=64, layers=2, heads=1, intermediate_size=128, context=CONTEXT)


def recorded(lake: Lake, n: int, cut: int) -> list[Stream]:
    """The first `n` trajectories of 40 turns or more, what was seen in a turn cut to `cut` characters."""
    found = [s for s in streams(EventLog(lake).read(columns=COLUMNS), ESTIMATE) if len(s.turns) >= STEPS]
    return [replace(s, turns=tuple(replace(t, seen=t.seen[:cut]) for t in s.turns)) for s in found[:n]]


def requests(stream: Stream, counter: Counter, budget: int) -> list[Request]:
    """One request per step, in the order of the steps, cut to a budget of prompt tokens."""
    turns = tuple(replace(t, tokens=(counter.message(t.said), counter.message(t.seen))) for t in stream.turns)
    stream, prompt = replace(stream, turns=turns), load("steer-concise")
    settings = Settings(budget, counter.name, k=1, history="none")
    built = [build(stream, point, (), prompt, settings, counter) for point in points(stream, prompt.kind, settings.k)]
    return [r for r in built if isinstance(r, Request)]


def ask(server: Server, work: Sequence[Request]) -> None:
    """One request after the other."""
    for request in work:
        server.post("/v1/chat/completions", {"messages": request.messages, "max_tokens": 1, "temperature": 0})


def run(model: Path, groups: Sequence[Sequence[Request]], *, caching: bool) -> tuple[float, float, float]:
    """(prompt tokens sent, prompt tokens computed, seconds): groups side by side, the requests of each in order."""
    python = vllm_python()
    assert python
    with serving(python, model, prefix_caching=caching) as server, ThreadPoolExecutor(CLIENTS) as pool:
        started = time.monotonic()
        list(pool.map(lambda group: ask(server, group), groups))
        wall = time.monotonic() - started
        sent = server.metric("vllm:prompt_tokens_total")
        return sent, sent - server.metric("vllm:prompt_tokens_cached_total"), wall


def main() -> None:
    """Make the model, build the requests, run both arms."""
    n, cut, budget = (int(a) for a in (*sys.argv[1:], *("6", "300", "32000")[len(sys.argv) - 1 :]))
    if vllm_python() is None or not SHARED.is_dir():
        print("prefix reuse: not measured; it needs `make vllm` and the recorded files in ../shared/data")
        return
    with tempfile.TemporaryDirectory() as scratch:
        lake, model = Lake(Path(scratch) / "lake"), Path(scratch) / "model"
        import_paths(lake, [SHARED / "mini-swe-agent-1", SHARED / "swe-agent-traj"])
        found = recorded(lake, n, cut)
        texts = [text for stream in found for turn in stream.turns for text in (turn.said, turn.seen)]
        start_from_scratch(Recipe(name="judge", architecture=ARCHITECTURE), texts, model)
        counter, renderer = Counter.of(model), Renderer.load(model)
        groups = [requests(stream, counter, budget) for stream in found]
        last = [len(renderer.prompt_ids(group[-1].messages)) for group in groups]
        short = sum(request.omitted > 0 for group in groups for request in group)
        print(
            f"{len(groups)} trajectories, {sum(map(len, groups))} requests, {short} of them with turns left out; "
            f"last prompts of {min(last)} to {max(last)} tokens"
        )
        shuffled = [request for group in groups for request in group]
        random.Random(0).shuffle(shuffled)
        arms = {
            "ordered, prefixes kept": (groups, True),
            "shuffled, none kept": ([shuffled[i::CLIENTS] for i in range(CLIENTS)], False),
        }
        computed = {}
        for name, (work, caching) in arms.items():
            sent, computed[name], wall = run(model, work, caching=caching)
            per = computed[name] / sum(last)
            print(
                f"{name}: sent {sent:,.0f}, computed {computed[name]:,.0f} = {per:.2f} x the last prompts, {wall:.0f} s"
            )
        kept, independent = computed.values()
        print(f"ratio {independent / kept:.1f}")


if __name__ == "__main__":
    main()
