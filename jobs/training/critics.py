"""TRL's trainers of critics, watched: on pairs, and on rewards. Apart from `trainer`, as importing them takes a while.

Belongs here: what differs from TRL inside a training step. Does not belong here: settings and data (the jobs).
"""

from __future__ import annotations

from typing import Any

from trl import DPOTrainer, GRPOTrainer

from jobs.training.trainer import Measured


class Referred(Measured):
    """To be mixed into a trainer with a reference model: with adapters, the reference is the base below them.

    TRL takes adapters for trained ones and copies them as its reference; a checkpoint then holds the copy in a folder of its
    own, which resuming would load in place of the adapters themselves.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "ref" in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter("ref")

    model: Any


class PairTrainer(Referred, DPOTrainer):  # type: ignore[misc]
    """Preference training on pairs that are tokens already."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


class RewardTrainer(Referred, GRPOTrainer):  # type: ignore[misc]
    """Training on rewards; a batch is prompts, whose completions are written and rewarded inside the step."""
