"""Supervised fine-tuning on a sealed dataset, with TRL: of a policy, of a critic on critiques, of a verifier on outcomes.

    python -m jobs.train_policy --recipe srft --lake ./lake            # every seed of the recipe
    python -m jobs.train_policy --recipe srft --lake ./lake --seed 1   # one
    accelerate launch --num_processes 2 -m jobs.train_policy --recipe srft --lake ./lake

Rows go in as `input_ids` and `labels`, which TRL's trainer uses as they are, whatever they teach. An interrupted run resumes
from its last whole checkpoint, provided that recipe, dataset, base and seed are still the same; it then ends in the same
weights as a run that was never interrupted. A seed that is trained already is not trained again.
"""

from __future__ import annotations

from typing import Any

from jobs.report import Reporter, command, quiet
from jobs.training import run
from jobs.training.checkpoints import last_checkpoint as last_checkpoint
from jobs.training.data import rows_of
from jobs.training.run import Fitted, Work, fitted
from jobs.training.run import reported as reported
from jobs.training.setup import arguments, load_model
from stepwell.lake import Lake
from stepwell.launching import POLICY
from stepwell.recipe import Recipe

_MEANS = {
    "token": "the trained tokens of an optimiser step",
    "sequence": "the rows of an optimiser step, of each row's mean over its trained tokens",
}


def train(
    recipe: Recipe, lake: Lake, seed: int, report: Reporter, *, base: str | None = None, again: bool = False
) -> dict[str, Any]:
    """Train one seed of a recipe and register the checkpoint; see `jobs.training.run.train`."""
    return run.train(POLICY, _fit, _objective, recipe, lake, seed, report, base=base, again=again)


def _objective(recipe: Recipe) -> str:
    return _MEANS[recipe.train.normalisation]


def _fit(work: Work) -> Fitted:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig

    from jobs.training.trainer import PolicyTrainer

    quiet()
    settings, fit, held_out = work.recipe.train, work.sealed.fit, work.sealed.held_out
    model = load_model(work.base, settings, work.seed)
    packing: dict[str, Any] = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    if settings.packing:  # nothing is padded, and what looks like padding closes replies where the two are one token
        packing = {"packing": True, "max_length": work.sealed.longest, "include_num_input_tokens_seen": "all"}
    config = SFTConfig(**arguments(settings, work.scratch, work.seed, evaluates=bool(len(held_out))) | packing)
    columns = ["input_ids", "labels"]

    def make(callbacks: list[Any]) -> PolicyTrainer:
        trainer = PolicyTrainer(
            model=model,
            args=config,
            train_dataset=Dataset(fit.select(columns)),
            eval_dataset=Dataset(held_out.select(columns)) if len(held_out) else None,
            processing_class=AutoTokenizer.from_pretrained(work.base),
            callbacks=callbacks,
        )
        trainer.normalisation = settings.normalisation
        trainer.rows = lambda inputs: rows_of(inputs, fit)
        return trainer

    return fitted(work, model, make, held_out=bool(len(held_out)))


def main() -> None:
    """Read the command line, train, report."""
    run.program(POLICY, str(__doc__).splitlines()[0], train)


if __name__ == "__main__":
    command(main)
