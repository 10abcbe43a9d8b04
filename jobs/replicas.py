"""One model on the devices of this machine: copies side by side, each as wide as it has to be.

Belongs here: how many devices there are, and which copy answers whom. Does not belong here: what one copy is (`model_policy`,
`vllm_policy`), and machines (`assets.machines`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobs.rollout import load_model
from stepwell.errors import RecipeError
from stepwell.recipe import Evaluation
from stepwell.rollout.policies import BatchPolicy, Reply, View


class Replicas:
    """Copies of one model that answer together; a conversation is always answered by the same copy, whose cache has it."""

    def __init__(self, copies: Sequence[BatchPolicy]) -> None:
        self.copies = list(copies)
        self.name, self.backend = self.copies[0].name, self.copies[0].backend

    def act_many(self, views: Sequence[View]) -> list[Reply]:
        """One reply per view, in order; each copy's part is one batch."""
        parts: list[list[int]] = [[] for _ in self.copies]
        for i, view in enumerate(views):
            parts[self.copy_of(view)].append(i)
        replies: dict[int, Reply] = {}
        with ThreadPoolExecutor(len(self.copies)) as executor:
            asked = [
                (p, executor.submit(c.act_many, [views[i] for i in p])) for c, p in zip(self.copies, parts, strict=True)
            ]
            for part, answers in asked:
                replies |= dict(zip(part, answers.result(), strict=True))
        return [replies[i] for i in range(len(views))]

    def copy_of(self, view: View) -> int:
        """Number of the copy that answers a view; it follows from the trajectory, which is the key less turn and role."""
        conversation = view.key.rsplit("/", 2)[0]
        return int.from_bytes(hashlib.sha256(conversation.encode()).digest()[:4], "big") % len(self.copies)


def load(directory: str, name: str, e: Evaluation) -> BatchPolicy:
    """The model of a directory as an evaluation asks for it; raises RecipeError where there are not that many devices."""
    require_devices(e)
    settings: dict[str, Any] = {
        "temperature": e.temperature, "top_p": e.top_p, "max_new_tokens": e.max_new_tokens, "seed": e.seed,
    }  # fmt: skip
    wide = e.tensor_parallel
    if wide == e.data_parallel == 1:
        return load_model(directory, name, e.backend, **settings)
    shares = [range(copy * wide, (copy + 1) * wide) for copy in range(e.data_parallel)]
    copies: list[BatchPolicy]
    if e.backend == "vllm":
        from jobs.vllm_policy import VllmPolicy

        copies = [VllmPolicy(directory, name, devices=share, **settings) for share in shares]
    else:
        from jobs.model_policy import TransformersPolicy

        copies = [TransformersPolicy(directory, name, device=f"cuda:{share[0]}", **settings) for share in shares]
    return copies[0] if len(copies) == 1 else Replicas(copies)


def n_devices() -> int:
    """GPUs of this machine; without one, its processor is the one device."""
    import torch

    return max(torch.cuda.device_count(), 1)


def require_devices(e: Evaluation) -> None:
    """Raise RecipeError when an evaluation asks for more devices than there are, or for what its backend cannot do."""
    wanted = e.tensor_parallel * e.data_parallel
    asked = f"`evaluation.tensor_parallel: {e.tensor_parallel}` and `data_parallel: {e.data_parallel}`"
    if wanted > 1 and e.backend == "endpoint":
        raise RecipeError(f"{asked} with `backend: endpoint`: the server decides what it computes on; leave them at 1.")
    if e.tensor_parallel > 1 and e.backend != "vllm":
        raise RecipeError(f"{asked} with `backend: {e.backend}`: only vllm divides a model; set tensor_parallel to 1.")
    if wanted > 1 and wanted > (found := n_devices()):
        raise RecipeError(
            f"{asked} need {wanted} devices, and this machine has {found}; lower them, or run on another machine "
            "(docs/remote.md)."
        )
