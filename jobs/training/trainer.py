"""TRL's trainers, watched: data time, losses that are no numbers, live metrics; and the supervised trainer.

Belongs here: what happens inside a training step. Does not belong here: settings (`setup`) and what is kept (`card`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from transformers import EarlyStoppingCallback, TrainerCallback
from trl import SFTTrainer

from stepwell.errors import StepwellError

Inputs = dict[str, Any]


class Measured:
    """To be mixed into a Trainer: every optimiser step logs `step_s` and of it `data_s` (waiting for its batches), both in
    seconds, the first one also `startup_s`, since this process began.

    The logs are in every checkpoint, so sums over them are those of the whole run. A loss that is no number raises
    StepwellError before the weights are touched, naming the step and the rows of the batch by `rows`.
    """

    rows: Callable[[Inputs], list[str]]
    _began = _data_s = 0.0
    _started = False

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The batches of one optimiser step; none where a run is resumed that has taken its last one already."""
        if self._finished():
            self.control.should_training_stop = True  # type: ignore[attr-defined]
            return [], None
        self._began = time.perf_counter()
        found = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        self._data_s = time.perf_counter() - self._began
        return found

    def _finished(self) -> bool:
        """Whether nothing is left to train: the Trainer itself asks only after a step, so it would take one too many."""
        state, callbacks = self.state, self.callback_handler.callbacks  # type: ignore[attr-defined]
        stopping = (c for c in callbacks if isinstance(c, EarlyStoppingCallback))
        patient = all(c.early_stopping_patience_counter < c.early_stopping_patience for c in stopping)
        return bool(state.global_step >= state.max_steps) or not patient

    def training_step(self, model: Any, inputs: Inputs, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch, forward and backward."""
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        if not math.isfinite(loss.item()):
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            raise StepwellError(
                f"the loss of step {step} is no number ({loss.item()}), in the rows {', '.join(self.rows(inputs))}. Lower "
                f"`train.learning_rate` (now {self.args.learning_rate}) or look at these rows."  # type: ignore[attr-defined]
            )
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the times to the log of a training step."""
        if "loss" in logs:
            logs |= {"data_s": self._data_s, "step_s": time.perf_counter() - self._began}
            if not self._started:
                self._started = True
                logs["startup_s"] = time.time() - psutil.Process().create_time()
        super().log(logs, *args, **kwargs)  # type: ignore[misc]


class PolicyTrainer(Measured, SFTTrainer):  # type: ignore[misc]
    """Supervised fine-tuning with either normalisation of the loss.

    `token`: the mean over the trained tokens of an optimiser step, over all devices and accumulated batches (TRL's own).
    `sequence`: the mean over its rows of each row's mean, so that a long trajectory counts no more than a short one.
    """

    normalisation = "token"

    def _get_num_items_in_batch(self, batch_samples: list[Inputs], device: torch.device) -> Any:
        if self.normalisation == "token":
            return super()._get_num_items_in_batch(batch_samples, device)
        rows = torch.tensor(sum(len(_trained(b)[1]) for b in batch_samples), device=device)
        return self.accelerator.gather(rows).sum() if self.args.world_size > 1 else rows

    def compute_loss(
        self, model: Any, inputs: Inputs, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch: its share of the step's, or while evaluating its own mean."""
        if self.normalisation == "token":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        owner, counts = _trained(inputs)
        if num_items_in_batch is None:  # evaluating: TRL multiplies what it is given a count for by the processes
            num_items_in_batch = len(counts) * self.accelerator.num_processes

        def weighted(**kwargs: Any) -> Any:
            outputs = model(**kwargs)
            weights = torch.zeros_like(outputs.log_probs)
            weights[outputs.label_mask.bool()] = (1 / counts)[owner].to(weights.dtype)
            outputs.log_probs = outputs.log_probs * weights
            return outputs

        return super().compute_loss(weighted, inputs, return_outputs, num_items_in_batch)


def _trained(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the trained positions in order, the number of their row; and the trained tokens of each row that has any."""
    labels = inputs["labels"][:, 1:] != -100
    if "seq_idx" in inputs:
        rows = inputs["seq_idx"][:, 1:]
    else:
        rows = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)
    _, owner, counts = torch.unique(rows[labels], return_inverse=True, return_counts=True)
    return owner, counts


class Watch(TrainerCallback):  # type: ignore[misc]
    """Every log to `metrics.jsonl` and TensorBoard in a folder; losses to `advance` (step, steps in all, what to say) and
    those of evaluations to `tell`."""

    def __init__(self, folder: Path, advance: Callable[[int, int, str], None], tell: Callable[[str], None]) -> None:
        self.folder, self.advance, self.tell = folder, advance, tell
        self.board: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin with what a resumed run has logged before; what came after its checkpoint is forgotten."""
        if not state.is_world_process_zero:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "metrics.jsonl").write_text("".join(map(_line, state.log_history)))
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pass a log on."""
        if self.board is None:
            return
        logs = state.log_history[-1]
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(_line(logs))
        for key, value in logs.items():
            place = f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"
            if key != "step":
                self.board.add_scalar(place, value, state.global_step)
        if "loss" in logs:
            self.advance(state.global_step, state.max_steps, f"loss {logs['loss']:.4f}")
        if "eval_loss" in logs:
            self.tell(f"step {state.global_step}/{state.max_steps} held-out loss {logs['eval_loss']:.4f}")

    def close(self) -> None:
        """Finish the TensorBoard file, before its folder is moved."""
        if self.board is not None:
            self.board.close()


def _line(logs: dict[str, Any]) -> str:
    return json.dumps(logs) + "\n"
