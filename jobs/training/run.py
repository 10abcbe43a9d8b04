"""One seed of a recipe, from a sealed dataset to a registered model: what every training job does around its own trainer.

Belongs here: the order of things, resuming, saving, the card and the row. Does not belong here: which trainer, which rows
and which loss (a job each: `jobs.train_policy`, `jobs.train_pairs`, `jobs.train_rewards`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import registry
from jobs.report import Reporter, flat, reporter
from jobs.training import card
from jobs.training.checkpoints import bytes_needed, last_checkpoint, require_room, scratch_of
from jobs.training.data import Sealed, sealed_for
from jobs.training.setup import memory_advice, require_hardware, require_held_out
from stepwell.errors import RecipeError
from stepwell.lake import Lake
from stepwell.launching import job_of
from stepwell.models import ancestors, model_name, named
from stepwell.recipe import Recipe, load


@dataclass(frozen=True)
class Work:
    """What a job trains: one seed of a recipe on a sealed dataset, from a base model, with checkpoints in `scratch`."""

    recipe: Recipe
    lake: Lake
    base: str
    seed: int
    sealed: Sealed
    scratch: Path
    report: Reporter


@dataclass(frozen=True)
class Fitted:
    """A trained model, written to `directory` (none in every process but the first), and how it went."""

    directory: Path | None
    metrics: dict[str, Any]
    n_parameters: int
    n_trainable: int


def train(
    job: str, fit: Callable[[Work], Fitted], objective: Callable[[Recipe], str], recipe: Recipe, lake: Lake, seed: int,
    report: Reporter, *, base: str | None = None, again: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Train one seed of a recipe by `fit` and register the checkpoint; returns its row of `models`.

    `job` is the module that trains, `objective` says in words what its loss is a mean over. What is trained already (same
    settings of training, dataset, base and seed) is returned as it is, unless `again`. Raises RecipeError before anything
    is loaded when dataset, base model, settings and this machine do not go together, or another job is for this kind of
    dataset.
    """
    if recipe.dataset is not None and (wanted := job_of(recipe)) != job:
        raise RecipeError(f"a dataset of method {recipe.dataset.method!r} is trained on by {wanted}, not by {job}.")
    initial = recipe.train.initial
    base_model = base or (registry.find(lake, initial)["path"] if initial else recipe.base_model)
    require_hardware(recipe.train)
    here = registry.local(lake, base_model)
    sealed = sealed_for(recipe, lake, here)
    require_held_out(recipe.train, len(sealed.held_out))
    name, base_id = model_name(recipe, seed), registry.identity_of(Path(here))
    base_model = named(lake, base_model, base_id)
    known = registry.trained(
        lake, name=name, training_hash=recipe.training_hash, dataset_hash=sealed.hash, base_id=base_id, seed=seed
    )
    if known and not again:
        anew = f"`python -m {job} --recipe FILE --lake URI --again` trains it anew"
        report.log(f"{known['model_id']} is trained already, by code {known['code_version']}; {anew}")
        return known
    folder = registry.models_folder(lake) / name
    report.log(f"training {name}: {len(sealed.fit)} rows, {sealed.trained_tokens} trained tokens, base {base_model}")
    started = time.monotonic()
    scratch = scratch_of(folder, recipe, sealed, here, seed)
    fitted = fit(Work(recipe, lake, here, seed, sealed, scratch, report))
    fitted.metrics["wall_s"] = wall_s = time.monotonic() - started
    environment = registry.environment()
    row = {
        "model_id": name,
        "name": name,
        "path": str(folder),
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
        "training_hash": recipe.training_hash,
        "dataset": sealed.table,
        "dataset_version": sealed.version,
        "dataset_hash": sealed.hash,
        "events_version": int(sealed.seal["events_version"]),
        "base_model": base_model,
        "base_id": base_id,
        "code_version": registry.code_version(),
        "seed": seed,
        "n_parameters": fitted.n_parameters,
        "n_rows": len(sealed.fit),
        "n_trained_tokens": sealed.trained_tokens,
        "metrics": registry.dumps(fitted.metrics),
        "environment": registry.dumps(environment),
        "wall_s": wall_s,
        "device_s": fitted.metrics["device_s"],
    }
    if fitted.directory is None:
        return row
    identity = registry.model_id(name, fitted.directory)
    final = folder / identity
    row |= {"model_id": identity, "path": str(final)}
    parents = [
        {k: p[k] for k in ("model_id", "recipe", "dataset", "dataset_hash")} for p in ancestors(lake, base_model)
    ]
    card.write(fitted.directory, {
        "model_id": identity, "name": name, "seed": seed, "seeds": list(recipe.seeds),
        "recipe": {"name": recipe.name, "hash": recipe.hash, "settings": recipe.model_dump(mode="json")},
        "dataset": sealed.facts(), "base": {"path": base_model, "model_id": base_id, "parents": parents},
        "training": {
            "job": job, "method": _method(recipe), "normalisation": recipe.train.normalisation,
            "objective": objective(recipe), "n_parameters": fitted.n_parameters, "n_trainable": fitted.n_trainable,
            **fitted.metrics,
        },
        "code": registry.code(), "environment": environment, "evaluations": [],
    })  # fmt: skip
    registry.publish(fitted.directory, final)
    registry.register(lake, row)
    shutil.rmtree(scratch, ignore_errors=True)
    report.log(f"trained {identity}: loss {fitted.metrics['train_loss']:.4f} in {wall_s:.0f} s")
    return row


def _method(recipe: Recipe) -> str:
    if recipe.train.lora is None:
        return "every weight"
    return "adapter merged into the weights" if recipe.train.lora.merge else "adapter"


def fitted(work: Work, model: Any, make: Callable[[list[Any]], Any], *, held_out: bool) -> Fitted:
    """Train with the trainer that `make` returns for these callbacks, resumed where it stopped, and save the model.

    `held_out`: the trainer has rows to evaluate on.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback

    from jobs.training.trainer import Watch

    settings, scratch, report = work.recipe.train, work.scratch, work.report
    n_parameters = sum(p.numel() for p in model.parameters())
    n_trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    require_room(scratch.parent, bytes_needed(n_parameters, n_trainable))
    with report.progress() as advance, closing(Watch(scratch, advance, report.log)) as watch:
        trainer = make([watch, *([EarlyStoppingCallback(settings.patience)] if settings.patience else [])])
        trainer.remove_callback(PrinterCallback)
        with trainer.args.main_process_first(local=False):
            checkpoint = last_checkpoint(scratch)
        if checkpoint:
            report.log(f"resuming from {checkpoint.name}")
        with memory_advice(settings, work.sealed.longest):
            trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
            state = trainer.state
            kept = state.best_global_step if settings.patience else state.global_step
            if held_out and not any("eval_loss" in e and e["step"] == kept for e in state.log_history):
                trainer.evaluate()
    metrics = card.summary(state.log_history, trainer.args.world_size)
    if held_out:
        metrics["eval_loss"] = next(p["loss"] for p in metrics["eval_curve"] if p["step"] == kept)
    if settings.patience:
        metrics |= {"best_step": kept, "stopped_early": state.global_step < state.max_steps}
    saved = _save(work, trainer, metrics) if trainer.is_world_process_zero() else None
    return Fitted(saved, metrics, n_parameters, n_trainable)


def _save(work: Work, trainer: Any, metrics: dict[str, Any]) -> Path:
    """Everything of a model directory but its card, under a name that says it is not one yet."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if work.recipe.train.lora and work.recipe.train.lora.merge:
        model = model.merge_and_unload()
    saving = work.scratch / "saving"  # with the checkpoints, so what a killed run left is overwritten or goes with them
    shutil.rmtree(saving, ignore_errors=True)
    model.save_pretrained(saving)
    trainer.processing_class.save_pretrained(saving)
    for kept in ("metrics.jsonl", "tensorboard"):
        os.rename(work.scratch / kept, saving / kept)
    card.draw(metrics, f"loss of {work.scratch.parent.name}", saving / card.CURVES)
    return saving


def reported(row: dict[str, Any]) -> dict[str, Any]:
    """What Dagster is told of a row of `models`, with the curves as a picture."""
    kept = (
        "model_id", "path", "dataset", "dataset_version", "dataset_hash", "events_version", "base_model", "seed", "n_rows",
        "n_trained_tokens", "n_parameters", "wall_s", "metrics", "code_version",
    )  # fmt: skip
    shown = card.picture(Path(row["path"]), f"loss of {row['name']}")
    curves = {"loss": {"raw_value": shown, "type": "md"}} if shown else {}
    return {**{k: row[k] for k in kept}, **curves}


def program(job: str, what: str, train: Callable[..., dict[str, Any]]) -> None:
    """Read the command line of a training job, train, report; `train` takes recipe, lake, seed, reporter and `again`."""
    parser = argparse.ArgumentParser(prog=f"python -m {job}", description=what)
    parser.add_argument("--recipe", required=True, help="recipe name or YAML file")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--seed", type=int, help="training seed; default: every seed of the recipe")
    parser.add_argument("--again", action="store_true", help="train anew what is trained already")
    options = parser.parse_args()
    recipe, lake = load(options.recipe), Lake(options.lake)
    seeds = recipe.seeds if options.seed is None else (options.seed,)
    with reporter() as report:
        rows = [train(recipe, lake, seed, report, again=options.again) for seed in seeds]
        report.done(flat({row["name"]: reported(row) for row in rows}), " ".join(row["model_id"] for row in rows))
