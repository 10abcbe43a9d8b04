"""The checkpoints of a run that is not finished: where they are, which one counts, whether there is room for them.

Belongs here: what makes an interrupted run end where an uninterrupted one does. Does not belong here: finished models
(`jobs.registry`).
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from jobs import registry
from jobs.training.data import Sealed
from stepwell.errors import StepwellError
from stepwell.ids import digest
from stepwell.recipe import Recipe


def scratch_of(folder: Path, recipe: Recipe, sealed: Sealed, base: str, seed: int) -> Path:
    """Where a run keeps its checkpoints: one folder for everything that decides its weights.

    Another recipe, dataset, base, seed, number of processes or version of the trainer is another folder, so a checkpoint is
    never resumed by a run that could not have written it.
    """
    libraries = [version(name) for name in ("torch", "transformers", "trl")]
    parts = (
        recipe.training_hash,
        sealed.hash,
        registry.model_id("", Path(base)),
        seed,
        registry.processes(),
        libraries,
    )
    return folder / f"trainer-{digest(*parts)[:12]}"


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


def require_room(folder: Path, n_bytes: int) -> None:
    """Raise StepwellError when the disk of a folder (made if absent) has less free than is about to be written."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise StepwellError(
            f"{folder} has {free / 2**30:.1f} GiB free; checkpoints and the model need about {n_bytes / 2**30:.1f} GiB. "
            "Make room, or set STEPWELL_MODELS to a folder on a larger disk."
        )


def bytes_needed(n_parameters: int, n_trainable: int) -> int:
    """Most a run holds at once, in float32: two checkpoints (trained weights, two moments of Adam), a best one, the model."""
    return 4 * (3 * 3 * n_trainable + n_parameters)
