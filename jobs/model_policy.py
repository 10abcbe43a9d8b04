"""A local model directory as a policy, with transformers: many conversations answered in one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.utils import logging

from stepwell.ids import canonical
from stepwell.rendering import Renderer
from stepwell.rollout.policies import Reply, View


class Sampled:
    """Sampling with a seed of its own for every row: the best of the logits with Gumbel noise is a draw from their softmax."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) -> scores whose best is the draw."""
        drawn = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])
        return scores - torch.log(-torch.log(drawn.clamp(1e-20, 1 - 1e-7))).to(scores.device)


class TransformersPolicy:
    """Greedy at temperature 0, else sampled; prompts are the renderer's token ids, replies end at the closing token.

    A sampled reply follows from `seed` and the turn's key alone, whichever others are answered with it. `device` is one of
    torch's, default: a GPU where there is one.
    """

    def __init__(
        self,
        directory: str | Path,
        name: str,
        *,
        temperature: float,
        max_new_tokens: int,
        seed: int,
        top_p: float = 1.0,
        device: str | None = None,
    ) -> None:
        logging.disable_progress_bar()
        self.name = name
        self.backend = f"transformers {version('transformers')}"
        self.renderer = Renderer.load(directory)
        self.temperature, self.max_new_tokens, self.seed, self.top_p = temperature, max_new_tokens, seed, top_p
        tokenizer = AutoTokenizer.from_pretrained(directory)
        self.closing = sorted({*self.renderer.closing_ids, tokenizer.eos_token_id} - {None})
        self.pad: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).to(where).eval()
        self.context = int(getattr(self.model.config, "max_position_embeddings", 1 << 30))

    @torch.inference_mode()
    def act_many(self, views: Sequence[View]) -> list[Reply]:
        """One reply per view; a conversation that does not fit the context gets none."""
        prompts = [self.renderer.prompt_ids(view.messages) for view in views]
        fits = [i for i, p in enumerate(prompts) if len(p) + self.max_new_tokens <= self.context]
        replies = [Reply(None, "context", detail=f"{len(p)} tokens of {self.context}") for p in prompts]
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
            seeds = [self.seed + views[i].sampling_seed for i in fits]
            shaped: list[Any] = [TemperatureLogitsWarper(self.temperature)]
            shaped += [TopPLogitsWarper(self.top_p)] if self.top_p < 1 else []
            sampling["logits_processor"] = LogitsProcessorList([*shaped, Sampled(seeds)])
        out = self.model.generate(
            ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self.pad,
            eos_token_id=self.closing,
            **sampling,
        )
        latency = (time.monotonic() - started) / len(fits)
        for row, i in enumerate(fits):
            new = out[row, width:].tolist()
            said = next((n for n, token in enumerate(new) if token in self.closing), len(new))
            closed, new = said < len(new), new[:said]
            text = self.renderer.tokenizer.decode(new, skip_special_tokens=False)
            used = {"tokens_in": len(prompts[i]), "tokens_out": len(new) + closed, "latency_s": latency}
            drawn = {
                "temperature": self.temperature,
                "top_p": self.top_p,
                "max_tokens": self.max_new_tokens,
                "seed": self.seed,
            }
            finish = "stop" if closed else "length"
            replies[i] = Reply(text, finish, {**used, "finish": finish, "sampling": canonical(drawn).decode()})
        return replies
