"""Training a critic on pairs of replies to one request, the better and the worse, with TRL (STEER v2, METHODS.md 1.3).

    python -m jobs.train_pairs --recipe critic_dpo --lake ./lake

Both replies go in as the token ids and labels of the dataset, nothing is rendered or cut here. What the trained model is held
near to is the base itself: a frozen copy, or the base below the adapters with `train.lora`. Resumed as `jobs.train_policy` is.
"""

from __future__ import annotations

from typing import Any

from jobs.report import Reporter, command, quiet
from jobs.training import run
from jobs.training.data import IGNORED, rows_of
from jobs.training.run import Fitted, Work, fitted
from jobs.training.setup import arguments, load_model
from stepwell.errors import RecipeError
from stepwell.lake import Lake
from stepwell.launching import PAIRS
from stepwell.recipe import Recipe

_COLUMNS = ["input_ids", "labels", "rejected_ids", "rejected_labels"]


def train(
    recipe: Recipe, lake: Lake, seed: int, report: Reporter, *, base: str | None = None, again: bool = False
) -> dict[str, Any]:
    """Train one seed of a recipe and register the checkpoint; see `jobs.training.run.train`."""
    for name, meant in (("packing", False), ("loss", "chosen"), ("normalisation", "token")):
        if getattr(recipe.train, name) != meant:
            raise RecipeError(f"`train.{name}: {getattr(recipe.train, name)}` has no meaning for pairs; leave it out.")
    return run.train(PAIRS, _fit, _objective, recipe, lake, seed, report, base=base, again=again)


def _objective(recipe: Recipe) -> str:
    dpo = recipe.train.dpo
    imitation = f", and {dpo.sft:g} times the loss of the better reply" if dpo.sft else ""
    return f"pairs: DPO ({dpo.loss}) with beta {dpo.beta:g}{imitation}"


def collated(pad: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows -> `input_ids`, `attention_mask`, `completion_mask`, each (2 * rows, longest): the better replies, then the worse.

    A token is of the completion where its label says so.
    """
    import torch

    pairs = [(r["input_ids"], r["labels"]) for r in rows] + [(r["rejected_ids"], r["rejected_labels"]) for r in rows]
    width = max(len(ids) for ids, _ in pairs)
    made = {name: torch.zeros((len(pairs), width), dtype=torch.long) for name in ("attention_mask", "completion_mask")}
    made["input_ids"] = torch.full((len(pairs), width), pad)
    for i, (ids, labels) in enumerate(pairs):
        made["input_ids"][i, : len(ids)] = torch.tensor(ids)
        made["attention_mask"][i, : len(ids)] = 1
        made["completion_mask"][i, : len(ids)] = torch.tensor([int(label != IGNORED) for label in labels])
    return made


def _fit(work: Work) -> Fitted:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig

    from jobs.training.critics import PairTrainer

    quiet()
    settings, fit, held_out = work.recipe.train, work.sealed.fit, work.sealed.held_out
    model = load_model(work.base, settings, work.seed)
    tokenizer = AutoTokenizer.from_pretrained(work.base)
    config = DPOConfig(
        **arguments(settings, work.scratch, work.seed, evaluates=bool(len(held_out))),
        beta=settings.dpo.beta,
        loss_type=[settings.dpo.loss, *(["sft"] if settings.dpo.sft else [])],
        loss_weights=[1.0, settings.dpo.sft] if settings.dpo.sft else None,
        max_length=None,
        remove_unused_columns=False,
    )

    def make(callbacks: list[Any]) -> PairTrainer:
        trainer = PairTrainer(
            model=model,
            args=config,
            data_collator=lambda rows: collated(tokenizer.pad_token_id, rows),
            train_dataset=Dataset(fit.select(_COLUMNS)),
            eval_dataset=Dataset(held_out.select(_COLUMNS)) if len(held_out) else None,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        trainer.rows = lambda inputs: rows_of({k: v.chunk(2)[0] for k, v in inputs.items()}, fit)
        return trainer

    return fitted(work, model, make, held_out=bool(len(held_out)))


def main() -> None:
    """Read the command line, train, report."""
    run.program(PAIRS, str(__doc__).splitlines()[0], train)


if __name__ == "__main__":
    command(main)
