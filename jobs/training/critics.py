"""TRL's trainers of critics, watched: on pairs, and on rewards. Apart from `trainer`, as importing them takes a while.

Belongs here: what differs from TRL inside a training step. Does not belong here: settings and data (the jobs).
"""

from __future__ import annotations

from typing import Any

from trl import DPOTrainer, GRPOTrainer

from jobs.training.trainer import Measured


class PairTrainer(Measured, DPOTrainer):  # type: ignore[misc]
    """Preference training on pairs that are tokens already."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


class RewardTrainer(Measured, GRPOTrainer):  # type: ignore[misc]
    """Training on rewards; a batch is prompts, whose completions are written and rewarded inside the step."""
