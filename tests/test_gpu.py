"""What only a GPU can show: run with `pytest -m gpu`, skipped elsewhere. Each test prints what it measured beside the limit.

The limit of training and of reading prompts is arithmetic: 6 (2) floating-point operations a parameter and token (forward
and backward, or forward alone) at the rate a matrix product of this very device reaches in bfloat16, measured in the same
run. That of generating is memory: every token of a sequence reads every weight once, at the rate a copy reaches.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_critic_jobs import LOOPS, WRITER, Made, moved
from transformers import LlamaConfig, LlamaForCausalLM

from jobs import train_policy, train_rewards
from jobs.make_base import start_from_scratch
from jobs.report import Reporter
from jobs.tokenizer import train_tokenizer
from jobs.training.setup import require_hardware
from jobs.vllm_policy import vllm_python
from stepwell.lake import Lake
from stepwell.recipe import Recipe, Train
from stepwell.rollout.policies import View
from stepwell.rollout.revision import revise

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]
ROWS, LENGTH = 8, 1024


def model(attention: str) -> Any:
    """A Llama of 110 million parameters with random weights, in bfloat16 on the GPU."""
    config = LlamaConfig(
        vocab_size=8192, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=4096, attn_implementation=attention,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).to("cuda", torch.bfloat16)


def seconds(work: Callable[[], object], times: int = 10) -> float:
    """Seconds a call takes once it is warm."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / times


def operations() -> float:
    """Floating-point operations a second of a large matrix product in bfloat16."""
    n = 8192
    a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    return 2 * n**3 / seconds(lambda: a @ a)


def bandwidth() -> float:
    """Bytes a second that a copy reads and writes."""
    a = torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    b = torch.empty_like(a)
    return 2 * a.numel() / seconds(lambda: b.copy_(a))


def told(what: str, rate: float, limit: float) -> None:
    """Print tokens a second beside the limit of the hardware."""
    print(f"\n{torch.cuda.get_device_name()}: {what}: {rate:,.0f} tokens/s, {100 * rate / limit:.1f}% of {limit:,.0f}")


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2", "eager"])
def test_a_training_step_in_bfloat16_learns_and_is_measured(attention: str) -> None:
    if attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        pytest.skip("flash-attn is not here")
    require_hardware(Train(bf16=True, attention="flash" if attention == "flash_attention_2" else "sdpa"))
    trained = model(attention)
    optimiser = torch.optim.AdamW(trained.parameters(), lr=1e-3, fused=True)
    ids = torch.randint(0, 8192, (ROWS, LENGTH), device="cuda")
    losses: list[torch.Tensor] = []

    def step() -> None:
        loss = trained(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.detach())

    taken = seconds(step)
    assert float(losses[-1]) < float(losses[0])
    assert torch.isfinite(losses[-1])
    parameters = sum(p.numel() for p in trained.parameters())
    told(f"training step, {attention}, {ROWS} x {LENGTH}", ROWS * LENGTH / taken, operations() / (6 * parameters))


def test_attentions_agree() -> None:
    names = ["sdpa", "eager", *(["flash_attention_2"] if importlib.util.find_spec("flash_attn") else [])]
    ids = torch.randint(0, 8192, (2, 512), device="cuda")
    with torch.inference_mode():
        logits = [model(name)(input_ids=ids).logits.float() for name in names]
    for name, other in zip(names[1:], logits[1:], strict=True):
        assert (logits[0] - other).abs().max() < 0.15, name
        assert (logits[0].argmax(-1) == other.argmax(-1)).float().mean() > 0.9, name


@pytest.mark.vllm
def test_rewards_train_a_critic_with_vllm_on_the_same_gpu(tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip(f"this interpreter has no vLLM; run these tests with {vllm_python()}")
    found = Made(Lake(tmp_path / "lake"), tmp_path / "base")
    architecture = {
        "vocab_size": 420,
        "hidden_size": 256,
        "layers": 2,
        "heads": 4,
        "intermediate_size": 512,
        "context": 4096,
    }
    loops = Recipe.model_validate({"name": "loops", "revision": LOOPS, "architecture": architecture})
    assert loops.revision
    revise(found.lake, loops.revision, lambda *_: pytest.fail("no model is asked"))
    rows = found.lake.read("events", columns=["attempt", "verdict"]).to_pylist()
    said = [r[k][f] for r in rows for k, f in (("attempt", "code"), ("verdict", "raw")) if r[k]]
    start_from_scratch(loops, said, found.base)
    grpo = {"generator": WRITER, "group": 4, "max_new_tokens": 64, "engine": {"kind": "colocate", "memory": 0.2}}
    # Without a critic that has learnt how to say a judgment every reward is 0, and nothing moves.
    taught = found.recipe("ctrl_sft", {"max_steps": 120, "learning_rate": 3e-3, "save_steps": 500})
    critic = train_policy.train(taught, found.lake, 0, Reporter(None))
    settings = {"initial": "ctrl_sft", "grpo": grpo, "max_steps": 10, "learning_rate": 1e-3}
    recipe = found.recipe("ctrl_rl", settings, "grown")
    row = train_rewards.train(recipe, found.lake, 0, Reporter(None))
    assert moved(row, critic["path"])
    run = json.loads(row["metrics"])
    made = 10 * recipe.train.batch_size * recipe.train.gradient_accumulation
    print(f"\n{torch.cuda.get_device_name()}: {made / run['step_s']:.1f} critiques rewarded and trained on a second")


@pytest.mark.vllm
def test_vllm_generates_on_the_gpu_and_is_measured(tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip(f"this interpreter has no vLLM; run these tests with {vllm_python()}")
    from jobs.vllm_policy import VllmPolicy

    tokenizer = train_tokenizer(["def f(a):\n    return a\n"] * 50, 300)
    tokenizer.save_pretrained(tmp_path)
    generating = model("sdpa")
    generating.save_pretrained(tmp_path)
    parameters = sum(p.numel() for p in generating.parameters())
    del generating
    limit = bandwidth() / (2 * parameters)
    torch.cuda.empty_cache()
    policy = VllmPolicy(tmp_path, "random", temperature=1.0, max_new_tokens=128, seed=0)
    views = [View([{"role": "user", "content": f"def f{n}" * 50}], key=f"{n}/0/agent") for n in range(256)]
    policy.act_many(views)
    started = time.perf_counter()
    replies = policy.act_many(views)
    taken = time.perf_counter() - started
    made = sum(r.usage["tokens_out"] for r in replies)
    assert all(r.text is not None for r in replies)
    assert sum(r.usage["cache_read"] for r in replies) > 0, "the second time every prompt is in the cache"
    told(f"vLLM, {len(views)} sequences at once", made / taken, limit * len(views))
