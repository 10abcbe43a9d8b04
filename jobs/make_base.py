"""Making the embedded base model: collect, train a tokenizer, start from random weights, train, save.

    python -m jobs.make_base --recipe jobs/recipes/_base.yaml --lake /tmp/base-lake --output jobs/base

The loss is on every token of every rollout: a base knows the world, it has not been taught what to do in it. This
is the committed recipe of the checkpoint that ships with the project; weights are stored in bfloat16.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs import registry
from jobs.report import Reporter, command, reporter
from jobs.tokenizer import train_tokenizer
from jobs.train_policy import train
from stepwell.conversation import READS, conversations
from stepwell.datasets.build import build
from stepwell.errors import RecipeError
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe, load
from stepwell.rendering import Renderer
from stepwell.rollout.collect import now_and_then
from stepwell.rollout.runs import collect_pool


def start_from_scratch(recipe: Recipe, texts: list[str], directory: Path) -> None:
    """Write a model directory with a tokenizer trained on the texts and random weights (seed 0)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    a = recipe.architecture
    tokenizer = train_tokenizer(texts, a.vocab_size)
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=a.hidden_size,
        intermediate_size=a.intermediate_size,
        num_hidden_layers=a.layers,
        num_attention_heads=a.heads,
        num_key_value_heads=a.heads,
        max_position_embeddings=a.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def make(recipe: Recipe, lake: Lake, output: Path, report: Reporter) -> None:
    """Run the whole recipe and leave the checkpoint in `output`; raises RecipeError when the recipe collects nothing."""
    import torch
    from transformers import AutoModelForCausalLM

    if recipe.collect is None:
        raise RecipeError(f"recipe {recipe.name!r} has no `collect`; a base model is trained on rollouts.")
    collect_pool(lake, recipe.collect, recipe.world, progress=now_and_then(lambda r: report.log(r.line())))
    events = EventLog(lake).read(corpora=[recipe.collect.corpus], columns=READS)
    texts = [f"{m['role']}\n{m['content']}" for chat in conversations(events) for m in chat.messages]
    settings = {"dataset": recipe.dataset and recipe.dataset.model_copy(update={"method": "all"})}
    everything = recipe.model_copy(update={**settings, "train": recipe.train.model_copy(update={"loss": "text"})})
    with TemporaryDirectory() as scratch:
        start_from_scratch(recipe, texts, Path(scratch))
        built = build(lake, everything, Renderer.load(scratch), "all")
        report.log(f"{built.n_rows} rows, {built.n_tokens} tokens, {built.n_trained_tokens} trained")
        row = train(everything, lake, recipe.seeds[0], report, base=scratch)
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(row["path"], output)
    model = AutoModelForCausalLM.from_pretrained(output, dtype=torch.bfloat16)
    model.save_pretrained(output)
    for name in ("README.md", "card.json", "curves.png", "metrics.jsonl", "training_args.bin"):
        (output / name).unlink(missing_ok=True)  # they speak of the model before its weights were rounded
    shutil.rmtree(output / "tensorboard", ignore_errors=True)
    report.log(f"{registry.model_id('base', output)}: {row['n_parameters']} parameters in {output}")


def main() -> None:
    """Read the command line, make the base."""
    parser = argparse.ArgumentParser(prog="python -m jobs.make_base", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="jobs/recipes/_base.yaml", help="recipe file")
    parser.add_argument("--lake", required=True, help="lake URI for its rollouts and dataset")
    parser.add_argument("--output", type=Path, default=Path("jobs/base"), help="model directory to write")
    options = parser.parse_args()
    with reporter() as report:
        make(load(options.recipe), Lake(options.lake), options.output, report)


if __name__ == "__main__":
    command(main)
