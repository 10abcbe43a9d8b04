"""Supervised fine-tuning of a policy on a sealed dataset, with TRL.

    python -m jobs.train_policy --recipe srft --lake ./lake --seed 0
    accelerate launch -m jobs.train_policy --recipe srft --lake ./lake

Rows go in as `input_ids` and `labels`, which TRL's trainer uses as they are: the loss is the mean over the trained tokens
of a batch. An interrupted run resumes from its last whole checkpoint, provided that recipe, dataset, base and seed are
still the same; it then ends in the same weights as a run that was never interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa

from jobs import registry
from jobs.report import Reporter, command, quiet, reporter
from stepwell.datasets.build import seal_of
from stepwell.errors import RecipeError
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.recipe import Recipe, load
from stepwell.rendering import Renderer

LINES = 10
"""Steps from one line of progress, and one point of the loss curve, to the next."""


def train(recipe: Recipe, lake: Lake, seed: int, report: Reporter, *, base: str | None = None) -> dict[str, Any]:
    """Train one seed of a recipe and register the checkpoint; returns its row of `models`.

    Raises RecipeError before anything is loaded when the dataset is missing, has nothing to train on, or was rendered
    with another tokenizer or template than the base model's.
    """
    base_model = base or recipe.base_model
    sealed = seal_of(lake, recipe.dataset_table)
    if sealed is None:
        raise RecipeError(f"no dataset {recipe.dataset_table!r} in {lake.uri}; build it: stepwell build {recipe.name}")
    version, seal = sealed
    hashes = Renderer.load(base_model).hashes
    differing = {k: (seal.get(k), v) for k, v in hashes.items() if seal.get(k) != v}
    if differing:
        raise RecipeError(
            f"{recipe.dataset_table} was rendered for another model than {base_model!r}: {differing}. Rebuild it."
        )
    rows = lake.read(recipe.dataset_table, version, ["row_id", "split", "input_ids", "labels", "n_trained_tokens"])
    rows = rows.sort_by("row_id")
    fit = rows.filter(pa.compute.equal(rows.column("split"), "train"))
    held_out = rows.filter(pa.compute.equal(rows.column("split"), "held_out"))
    trained_tokens = sum(fit.column("n_trained_tokens").to_pylist())
    if not trained_tokens:
        raise RecipeError(
            f"{recipe.dataset_table} has no token to train in its train split ({len(fit)} rows). Widen `source`."
        )
    name = recipe.name if seed == 0 and len(recipe.seeds) == 1 else f"{recipe.name}-seed{seed}"
    folder = registry.models_folder(lake) / name
    report.log(f"training {name}: {len(fit)} rows, {trained_tokens} trained tokens, base {base_model}")
    started = time.monotonic()
    scratch = (
        folder
        / f"trainer-{digest(recipe.hash, seal['dataset_hash'], registry.model_id('', Path(base_model)), seed)[:12]}"
    )
    saved, metrics, n_parameters = _fit(recipe, base_model, seed, fit, held_out, scratch, report)
    identity = registry.model_id(name, saved)
    final = folder / identity
    if final.exists():
        shutil.rmtree(saved)
    else:
        os.replace(saved, final)
    row = {
        "model_id": identity,
        "name": name,
        "path": str(final),
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
        "dataset": recipe.dataset_table,
        "dataset_version": version,
        "dataset_hash": seal["dataset_hash"],
        "events_version": int(seal["events_version"]),
        "base_model": base_model,
        "code_version": registry.code_version(),
        "seed": seed,
        "n_parameters": n_parameters,
        "n_rows": len(fit),
        "n_trained_tokens": trained_tokens,
        "metrics": registry.dumps(metrics),
        "environment": registry.dumps(registry.environment()),
        "wall_s": time.monotonic() - started,
    }
    registry.register(lake, row)
    for unfinished in (*folder.glob("trainer-*"), *folder.glob("saving-*")):
        shutil.rmtree(unfinished)
    report.log(f"trained {identity}: loss {metrics['train_loss']:.4f} in {row['wall_s']:.0f} s")
    return row


def last_checkpoint(scratch: Path) -> Path | None:
    """The newest whole checkpoint of an interrupted run; others are removed, as the process may have died writing them.

    The trainer writes `trainer_state.json` last, and removes older checkpoints only after that.
    """
    whole = None
    for folder in sorted(scratch.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        try:
            json.loads((folder / "trainer_state.json").read_text())
        except (OSError, ValueError):
            shutil.rmtree(folder)
            continue
        whole = whole or folder
    return whole


def _fit(
    recipe: Recipe, base: str, seed: int, fit: pa.Table, held_out: pa.Table, scratch: Path, report: Reporter
) -> tuple[Path, dict[str, Any], int]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Lines(TrainerCallback):  # type: ignore[misc]
        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            loss = (logs or {}).get("loss")
            if loss is not None and not math.isfinite(loss):
                control.should_training_stop = True
            if loss is not None and (state.global_step % LINES == 0 or state.global_step == state.max_steps):
                report.log(f"step {state.global_step}/{state.max_steps} loss {loss:.4f}")

    quiet()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    settings = recipe.train
    cuda = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(scratch),
        max_length=recipe.dataset.max_length if recipe.dataset else 1024,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.scheduler,
        packing=settings.packing,
        bf16=settings.bf16 and cuda,
        use_cpu=not cuda,
        seed=seed,
        data_seed=seed,
        logging_steps=1,  # every step's loss is then in the checkpoint; the trainer's own mean forgets what came before
        logging_nan_inf_filter=False,
        save_steps=settings.save_steps,
        save_total_limit=1,
        eval_strategy="no",
        report_to="none",
        dataloader_pin_memory=cuda,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    columns = ["input_ids", "labels"]
    if settings.loss == "text":
        fit, held_out = (pa.table({c: rows.column("input_ids") for c in columns}) for rows in (fit, held_out))
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset(fit.select(columns)),
        eval_dataset=Dataset(held_out.select(columns)) if len(held_out) else None,
        processing_class=tokenizer,
        callbacks=[Lines()],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(scratch)
    if checkpoint:
        report.log(f"resuming from {checkpoint.name}")
    outcome = trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    metrics = dict(outcome.metrics)
    losses = [(r["step"], r["loss"]) for r in trainer.state.log_history if "loss" in r]
    if not all(math.isfinite(loss) for _, loss in losses):
        raise RecipeError(
            f"the loss of {recipe.name!r} is no number after step {losses[-1][0]}; lower `train.learning_rate` "
            f"(now {settings.learning_rate})."
        )
    if len(held_out):
        metrics.update(trainer.evaluate())
    metrics["train_loss"] = fmean(loss for _, loss in losses)
    windows = [losses[i : i + LINES] for i in range(0, len(losses), LINES)]
    metrics["curve"] = [{"step": w[-1][0], "loss": fmean(loss for _, loss in w)} for w in windows]
    saved = scratch.parent / f"saving-{os.getpid()}"
    model.save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    return saved, metrics, sum(p.numel() for p in model.parameters())


def main() -> None:
    """Read the command line, train, report."""
    parser = argparse.ArgumentParser(prog="python -m jobs.train_policy", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True, help="recipe name or YAML file")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--seed", type=int, default=0, help="training seed")
    options = parser.parse_args()
    with reporter() as report:
        row = train(load(options.recipe), Lake(options.lake), options.seed, report)
        shown = (
            "model_id",
            "path",
            "dataset",
            "dataset_version",
            "dataset_hash",
            "events_version",
            "base_model",
            "seed",
        )
        counts = ("n_rows", "n_trained_tokens", "n_parameters", "wall_s", "metrics", "code_version")
        report.done({k: row[k] for k in (*shown, *counts)}, row["model_id"])


if __name__ == "__main__":
    command(main)
