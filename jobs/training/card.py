"""The model card: what a checkpoint was made from, by which code, on what, and how it went; beside the weights.

Belongs here: `card.json`, the README.md a model hub shows, and the picture of the curves. Does not belong here: measuring.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from stepwell.sheets import cell

CARD, README, CURVES = "card.json", "README.md", "curves.png"
WINDOW = 10
"""Optimiser steps in one point of the training curve."""
MEASURED = {
    "reward": "mean reward", "format_rate": "share of critiques with a judgment",
    "frac_reward_zero_std": "groups without variance",
    "kl": "KL to the base", "entropy": "entropy per token", "completions/mean_length": "tokens of a critique",
    "rewards/accuracies": "pairs ranked rightly", "rewards/margins": "margin of the better reply",
}  # fmt: skip
"""What training on pairs or rewards is watched by beside its loss, and what the plot calls it."""
_SHARES = ("reward", "format_rate", "frac_reward_zero_std", "rewards/accuracies")


def summary(history: Sequence[dict[str, Any]], processes: int) -> dict[str, Any]:
    """What a trainer's log comes to: losses, curves and times over the whole run, resumed or not.

    Times in seconds. `train_loss` is the mean over every step, `final_loss` that of the last window of steps, `data_share`
    the share of step time spent waiting for batches, `device_s` step time summed over processes.
    """
    steps = [entry for entry in history if "loss" in entry]
    windows = [steps[i : i + WINDOW] for i in range(0, len(steps), WINDOW)]
    curve = [
        {"step": w[-1]["step"], "learning_rate": w[-1]["learning_rate"]}
        | {key: fmean(s[key] for s in w if key in s) for key in ("loss", "grad_norm", *MEASURED) if key in w[-1]}
        for w in windows
    ]
    evaluated = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    spent = sum(s["step_s"] for s in steps)
    tokens = steps[-1].get("num_input_tokens_seen", steps[-1].get("num_tokens", 0))
    return {
        "steps": steps[-1]["step"],
        "train_loss": fmean(s["loss"] for s in steps),
        "final_loss": curve[-1]["loss"],
        "curve": curve,
        "eval_curve": [{"step": step, "loss": loss} for step, loss in evaluated.items()],
        "step_s": spent,
        "device_s": spent * processes,
        "data_share": sum(s["data_s"] for s in steps) / spent,
        "startup_s": next(s["startup_s"] for s in steps if "startup_s" in s),
        "tokens": tokens,
        "tokens_per_s": tokens / spent,
    }


def draw(metrics: dict[str, Any], title: str, file: Path) -> None:
    """Loss (training and held-out), gradient norm, learning rate and what of MEASURED there is, over optimiser steps: a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curve, held_out = metrics["curve"], metrics["eval_curve"]
    at = [p["step"] for p in curve]
    more = [key for key in MEASURED if any(key in p for p in curve)]
    rows = 1 + (len(more) + 1) // 2
    figure = Figure(figsize=(8, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    loss, norm, *others = figure.subplots(rows, 2).flat
    for axes, key in zip(others, more, strict=False):
        axes.plot(*zip(*((p["step"], p[key]) for p in curve if key in p), strict=True), color="#356", marker=".")
        axes.set(title=MEASURED[key], xlabel="optimiser step", ylim=(0, 1) if key in _SHARES else None)
    for axes in others[len(more) :]:
        axes.set_axis_off()
    loss.plot(at, [p["loss"] for p in curve], color="#356", label="training", marker="." if len(at) < 3 else None)
    if held_out:
        loss.plot([p["step"] for p in held_out], [p["loss"] for p in held_out], "o-", color="#a53", label="held out")
    loss.set(title=title, xlabel="optimiser step", ylabel="loss")
    loss.legend()
    norm.plot(at, [p.get("grad_norm", 0) for p in curve], color="#583", label="gradient norm")
    rate = norm.twinx()
    rate.plot(at, [p["learning_rate"] for p in curve], color="#888", linestyle="--", label="learning rate")
    norm.set(xlabel="optimiser step", ylabel="gradient norm")
    rate.set_ylabel("learning rate")
    norm.legend(handles=[*norm.get_lines(), *rate.get_lines()])
    figure.savefig(file, dpi=90)


def picture(directory: Path, title: str) -> str:
    """The curves of a model directory as Markdown with the picture in it; empty without one."""
    file = directory / CURVES
    return f"![{title}](data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()})" if file.exists() else ""


def write(directory: Path, card: dict[str, Any]) -> None:
    """Write `card.json` and the README.md rendered from it; each is replaced whole."""
    texts = {CARD: json.dumps(card, indent=2, sort_keys=True, default=str) + "\n", README: render(card)}
    for name, text in texts.items():
        fresh = directory / f"{name}.{os.getpid()}"
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, directory / name)


def add_evaluation(directory: Path, evaluation: dict[str, Any]) -> None:
    """Add an evaluation (with its `evaluation_id`) to the card of a model directory; one without a card is left alone."""
    file = directory / CARD
    if file.exists():
        card = json.loads(file.read_text(encoding="utf-8"))
        others = [e for e in card["evaluations"] if e["evaluation_id"] != evaluation["evaluation_id"]]
        write(directory, {**card, "evaluations": [*others, evaluation]})


def render(card: dict[str, Any]) -> str:
    """The README.md: front matter as model hubs read it, then what a reader asks first."""
    data, base, run, code = card["dataset"], card["base"], card["training"], card["code"]
    front = {
        "library_name": "peft" if run["method"] == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "base_model": base["path"],
        "tags": ["stepwell", f"recipe:{card['recipe']['name']}"],
    }
    held_out = "none held out" if run.get("eval_loss") is None else f"{run['eval_loss']:.4f}"
    chain = " <- ".join([card["model_id"], *(p["model_id"] for p in base["parents"])])
    lines = [
        f"# {card['model_id']}",
        card["recipe"]["settings"]["title"] or f"Trained by the recipe `{card['recipe']['name']}`.",
        f"Every row it learnt from, and where that came from: `stepwell trace {card['model_id']}`",
        "## Made from",
        _table({
            "dataset": f"`{data['table']}` version {data['version']}, hash `{data['dataset_hash']}`",
            "rows": f"{data['rows']} and {data['held_out_rows']} held out",
            "tokens": f"{data['tokens']}, of which {data['trained_tokens']} are in the loss",
            "events": f"version {data.get('events_version', '-')}",
            "base model": f"`{base['path']}` ({base['model_id']})",
            "parents": chain,
            "recipe": f"`{card['recipe']['name']}`, hash `{card['recipe']['hash']}`",
            "code": f"stepwell {code['version']}, commit {code['commit'] or 'unknown'}" + ", changed since" * code["dirty"],
        }),
        "## Training",
        _table({
            "method": run["method"],
            "loss": f"mean over {run['objective']}",
            "seed": card["seed"],
            "steps": run["steps"],
            "training loss": f"{run['train_loss']:.4f} over all steps, {run['final_loss']:.4f} at the end",
            "held-out loss": held_out,
            "time": f"{run['wall_s']:.0f} s, of which {run['step_s']:.0f} s in steps ({run['device_s']:.0f} device seconds)",
            "speed": f"{run['tokens_per_s']:.0f} tokens/s; {100 * run['data_share']:.1f}% of step time waiting for data",
        }),
        f"![curves]({CURVES})",
        "## What the dataset left out",
        *([_funnel(data["funnel"])] if data["funnel"] else ["Not recorded."]),
        "## Evaluations",
        *(["None when this was written."] if not card["evaluations"] else map(_table, card["evaluations"])),
        "## Settings",
        f"```yaml\n{yaml.safe_dump(card['recipe']['settings'], sort_keys=False)}```",
        "## Environment",
        _table(card["environment"]),
    ]  # fmt: skip
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n\n".join(lines) + "\n"


def _table(facts: dict[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {cell(k)} | {cell(str(v))} |" for k, v in facts.items())])


def _funnel(lines: Sequence[dict[str, Any]]) -> str:
    columns = ("trajectories", "steps", "tokens")
    rows = [" | ".join([cell(line["line"]), *(str(line.get(c, 0)) for c in columns)]) for line in lines]
    return "\n".join(["| | trajectories | steps | tokens |", "|---|---|---|---|", *(f"| {row} |" for row in rows)])
