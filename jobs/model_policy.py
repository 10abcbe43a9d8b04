"""A local model directory as a policy, with transformers: many conversations answered in one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.report import quiet
from stepwell.rendering import Message, Renderer
from stepwell.rollout.batch import Reply


class TransformersPolicy:
    """Greedy at temperature 0, else sampled; prompts are the renderer's token ids, replies end at the closing token."""

    def __init__(self, directory: str | Path, name: str, *, temperature: float, max_new_tokens: int, seed: int) -> None:
        quiet()
        self.name = name
        self.backend = f"transformers {version('transformers')}"
        self.renderer = Renderer.load(directory)
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        tokenizer = AutoTokenizer.from_pretrained(directory)
        self.eos: int = tokenizer.eos_token_id
        self.pad: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).to(device).eval()
        self.context = int(getattr(self.model.config, "max_position_embeddings", 1 << 30))
        torch.manual_seed(seed)

    @torch.inference_mode()
    def act_many(self, chats: Sequence[Sequence[Message]]) -> list[Reply]:
        """One reply per conversation; a conversation that does not fit the context gets a reply with text None."""
        prompts = [self.renderer.prompt_ids(chat) for chat in chats]
        fits = [i for i, p in enumerate(prompts) if len(p) + self.max_new_tokens <= self.context]
        replies = [Reply(None, len(p), 0, 0.0, "context") for p in prompts]
        if not fits:
            return replies
        started = time.monotonic()
        width = max(len(prompts[i]) for i in fits)
        ids = torch.full((len(fits), width), self.pad)
        mask = torch.zeros((len(fits), width), dtype=torch.long)
        for row, i in enumerate(fits):
            ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, width - len(prompts[i]) :] = 1
        # Said here because a model's own generation_config counts where nothing is said.
        sampling: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0}
        if self.temperature > 0:
            sampling |= {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        out = self.model.generate(
            ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self.pad,
            eos_token_id=self.eos,
            **sampling,
        )
        latency = (time.monotonic() - started) / len(fits)
        for row, i in enumerate(fits):
            new = out[row, width:].tolist()
            closed = self.eos in new
            new = new[: new.index(self.eos)] if closed else new
            text = self.renderer.tokenizer.decode(new, skip_special_tokens=False)
            replies[i] = Reply(text, len(prompts[i]), len(new) + closed, latency, "stop" if closed else "length")
        return replies
