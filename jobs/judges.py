"""Models that judge, with transformers in this process: as one of two replies, or in words.

Belongs here: answering calls. Does not belong here: what is asked and what answers mean (`stepwell.critics`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import exp
from random import Random

import torch
from transformers import AutoModelForCausalLM

from jobs.model_policy import TransformersPolicy
from jobs.report import quiet
from stepwell.chat import Call, Completion, Failure, Message, prompt_hash
from stepwell.ids import storable
from stepwell.rendering import Renderer
from stepwell.rollout.policies import View

_BATCH = 8


class Answers:
    """A choice of two replies with transformers, by the chance of the first against the second, each as a whole.

    At temperature 0 the likelier one is said; above it the reply is drawn, and follows from the seed and the messages alone.
    Calls for the same messages are computed once.
    """

    def __init__(self, directory: str, replies: tuple[str, str]) -> None:
        quiet()
        self.replies = replies
        self.renderer = Renderer.load(directory)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).to(device).eval()
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 1 << 30))

    def __call__(self, calls: Sequence[Call]) -> list[Completion | Failure]:
        """Answer many calls, in order; one that does not fit the context is a failure."""
        started = time.monotonic()
        keys = [prompt_hash(call.messages) for call in calls]
        prompts = list({key: call.messages for key, call in zip(keys, calls, strict=True)}.items())
        weighed: dict[str, tuple[float, int] | Failure] = {}
        for i in range(0, len(prompts), _BATCH):
            part = prompts[i : i + _BATCH]
            weighed |= zip((key for key, _ in part), self._weigh([messages for _, messages in part]), strict=True)
        latency = round((time.monotonic() - started) / len(calls), 6)
        return [self._said(call, weighed[key], latency) for key, call in zip(keys, calls, strict=True)]

    @torch.inference_mode()
    def _weigh(self, prompts: Sequence[Sequence[Message]]) -> list[tuple[float, int] | Failure]:
        """For each prompt the log odds of the first reply against the second, and its tokens."""
        rows = []
        for messages in prompts:
            n = sum(m["role"] == "assistant" for m in messages)
            for answer in self.replies:
                rows.append(
                    self.renderer.encode([*messages, {"role": "assistant", "content": answer}], [0.0] * n + [1.0])
                )
        width = max(len(r.input_ids) for r in rows)
        if width > self.context and len(prompts) > 1:
            return [one for messages in prompts for one in self._weigh([messages])]
        if width > self.context:
            return [Failure("context", f"{width} tokens of {self.context}")]
        ids, labels = torch.zeros((len(rows), width), dtype=torch.long), torch.full((len(rows), width), -100)
        for i, r in enumerate(rows):  # padded behind the reply, where causal attention never looks
            ids[i, : len(r.input_ids)] = torch.tensor(r.input_ids)
            labels[i, : len(r.labels)] = torch.tensor(r.labels)
        logits = self.model(ids.to(self.model.device)).logits[:, :-1].float().log_softmax(-1).cpu()
        wanted = labels[:, 1:]
        said = logits.gather(2, wanted.clamp(min=0)[:, :, None])[:, :, 0]
        score = (said * (wanted != -100)).sum(1).view(-1, 2)
        odds = (score[:, 0] - score[:, 1]).tolist()
        return [(odd, len(rows[2 * i].input_ids)) for i, odd in enumerate(odds)]

    def _said(self, call: Call, weighed: tuple[float, int] | Failure, latency: float) -> Completion | Failure:
        if isinstance(weighed, Failure):
            return weighed
        odds, tokens = weighed
        return Completion(
            self.replies[not _first(call, odds)], tokens_in=tokens, tokens_out=1, latency_s=latency, finish="stop",
            yes=_chance(odds), at=round(time.time(), 6),
        )  # fmt: skip


def _chance(odds: float) -> float:
    """Of log odds."""
    return 1 / (1 + exp(-odds)) if odds > -700 else 0.0


def _first(call: Call, odds: float) -> bool:
    """Whether the first of two replies is said, of these log odds at temperature 1."""
    if call.temperature <= 0:
        return odds > 0
    return Random(f"{call.seed} {prompt_hash(call.messages)}").random() < _chance(odds / call.temperature)


class Words:
    """A model that judges in words, with transformers, greedily."""

    def __init__(self, directory: str, max_tokens: int) -> None:
        self.policy = TransformersPolicy(directory, directory, temperature=0.0, max_new_tokens=max_tokens, seed=0)
        self.context = self.policy.context

    def __call__(self, calls: Sequence[Call]) -> list[Completion | Failure]:
        """Answer many calls at once, in order."""
        replies = self.policy.act_many([View(messages=list(call.messages)) for call in calls])
        return [
            Failure(r.finish, r.detail) if r.text is None else Completion(
                storable(r.text), tokens_in=r.usage["tokens_in"], tokens_out=r.usage["tokens_out"],
                latency_s=r.usage["latency_s"], finish=r.finish,
            )
            for r in replies
        ]  # fmt: skip
