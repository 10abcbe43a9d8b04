"""From a recipe's `train` to a model and the arguments of a TRL trainer, with clear refusals before anything is spent.

Belongs here: settings that mean the same for every method. Does not belong here: a method's own settings, or its loss.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepwell.errors import RecipeError
from stepwell.recipe import Train

_ATTENTION = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}


def require_hardware(settings: Train) -> None:
    """Raise RecipeError when this machine cannot do what the settings ask for."""
    import torch

    cuda = torch.cuda.is_available()
    if settings.bf16 and not (cuda and torch.cuda.is_bf16_supported(including_emulation=False)):
        where = torch.cuda.get_device_name() if cuda else "a CPU, where it is many times slower than float32"
        raise RecipeError(f"`train.bf16: true` on {where}; set it to false, or run on a GPU that computes in bfloat16.")
    if settings.attention == "flash" and not (cuda and importlib.util.find_spec("flash_attn")):
        raise RecipeError(
            "`train.attention: flash` needs a CUDA GPU and the package flash-attn; set it to sdpa, or install flash-attn."
        )
    if settings.lora and importlib.util.find_spec("peft") is None:
        raise RecipeError("`train.lora` needs the package peft; install it (pip install peft), or remove `lora`.")


def require_held_out(settings: Train, n_held_out: int) -> None:
    """Raise RecipeError when early stopping is asked for without anything to stop on."""
    if not settings.patience:
        return
    if not settings.eval_steps:
        raise RecipeError(
            f"`train.patience: {settings.patience}` needs `train.eval_steps` (now 0): steps between evaluations."
        )
    if not n_held_out:
        raise RecipeError(
            f"`train.patience: {settings.patience}` needs held-out rows, and the dataset has none. Raise `dataset.held_out`."
        )


def load_model(base: str, settings: Train, seed: int) -> Any:
    """The base model in float32, wrapped in adapters drawn from `seed` where the settings ask for them."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation=_ATTENTION[settings.attention]
    )
    if settings.lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    low, known = settings.lora, {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if not isinstance(low.target_modules, str) and (strange := set(low.target_modules) - known):
        has = ", ".join(sorted(known - {""}))
        raise RecipeError(
            f"`train.lora.target_modules` names {sorted(strange)}, which {base!r} has not; it has: {has}."
        )
    # An adapter that is kept finds its base again from any folder.
    model.name_or_path = str(Path(base).resolve()) if Path(base).is_dir() else base
    set_seed(seed)
    modules = low.target_modules if isinstance(low.target_modules, str) else list(low.target_modules)
    config = LoraConfig(
        r=low.rank, lora_alpha=low.alpha, lora_dropout=low.dropout, target_modules=modules, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def arguments(settings: Train, scratch: Path, seed: int, *, evaluates: bool) -> dict[str, Any]:
    """The `TrainingArguments` every TRL trainer shares; `evaluates`: there are held-out rows."""
    import torch

    cuda = torch.cuda.is_available()
    every = settings.eval_steps if evaluates else 0
    best: dict[str, Any] = {}
    if settings.patience:
        best = {
            "load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False,
            "restore_callback_states_from_checkpoint": True,
        }  # fmt: skip
    return {
        "output_dir": str(scratch),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "learning_rate": settings.learning_rate,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "warmup_steps": settings.warmup_ratio,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "lr_scheduler_type": settings.scheduler,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": settings.bf16,
        "use_cpu": not cuda,
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,  # every step is then in the checkpoint; the trainer's own mean forgets what came before
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        "save_steps": every if settings.patience else settings.save_steps,
        "save_total_limit": 1,
        "eval_strategy": "steps" if every else "no",
        "eval_steps": every or None,
        "report_to": "none",
        "dataloader_pin_memory": cuda,
        "ddp_find_unused_parameters": False,
        "disable_tqdm": True,
        **best,
    }


@contextmanager
def memory_advice(settings: Train, longest: int) -> Iterator[None]:
    """Turn running out of memory, on a GPU or not, into a RecipeError that names the settings to lower."""
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:  # what a CPU allocation raises has no class of its own
        said = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in said:
            raise
        raise RecipeError(
            f"out of memory with `train.batch_size: {settings.batch_size}` and rows of up to {longest} tokens: lower "
            f"batch_size and raise gradient_accumulation (now {settings.gradient_accumulation}) by the same factor; or set "
            f"gradient_checkpointing: true, lora, or a lower `dataset.max_length`. ({said.partition(chr(10))[0]})"
        ) from error
