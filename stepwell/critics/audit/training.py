"""Training: which trajectories a critic learnt from, so that a fit to them is never called an evaluation.

Belongs here: following a critic's model through `models` and the datasets they name. Does not belong here: figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.compute as pc

from stepwell.affected import readable, table_of
from stepwell.critics.run import CRITICS
from stepwell.lake import Lake
from stepwell.models import ancestors, registered

Kind = Literal["evaluation", "training-fit", "unknown"]
_ENSEMBLE = re.compile(r"^majority-\d+/(.+)$")


@dataclass(frozen=True)
class Training:
    """What is known of a critic's training: the models and datasets it goes back to, and their trajectories.

    `known` is False when no model of the lake is in its name and it is no rule. `erased` are those of the datasets that a
    redaction took rows from: of them there are only the trajectories that are left.
    """

    known: bool = False
    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    trajectory_ids: frozenset[str] = frozenset()
    erased: tuple[str, ...] = ()

    @property
    def caveat(self) -> str:
        """What to say where not all of its data can be looked at; nothing where it can."""
        return f"judged by what a redaction left of {', '.join(self.erased)}" if self.erased else ""

    def kind(self, audited: Iterable[str]) -> Kind:
        """Whether figures on these trajectories are an evaluation, a fit to training data, or neither for certain."""
        if self.trajectory_ids & set(audited):
            return "training-fit"
        return "evaluation" if self.known and not self.erased else "unknown"


def training_of(lake: Lake, critic: str) -> Training:
    """The training of a critic, of every member of an ensemble, and of the models its model started from.

    A critic names its model by id, name or directory, between slashes; rules that run in this process have no training.
    Rows held out of training do not count. A dataset is read as it is now where a redaction erased what was trained on.
    """
    ensemble = _ENSEMBLE.match(critic)
    members = ensemble[1].split("+") if ensemble else [critic]
    models = registered(lake)
    found: dict[str, dict[str, Any]] = {}
    known = True
    for member in members:
        row = next((m for m in models if _names(member, m)), None)
        known &= member in CRITICS or row is not None
        if row is not None:
            found |= {m["model_id"]: m for m in (row, *ancestors(lake, row["base_model"]))}
    sources = sorted({(name, m["dataset_version"]) for m in found.values() if (name := table_of(m))})
    ids: set[str] = set()
    erased = []
    for name, version in sources:
        at = readable(lake, name, version)
        erased += [f"{name}@{version}"] if at != version else []
        rows = lake.read(name, at, ["trajectory_id", "split"])
        ids.update(rows.filter(pc.equal(rows.column("split"), "train")).column("trajectory_id").to_pylist())
    datasets = tuple(f"{name}@{version}" for name, version in sources)
    return Training(known, tuple(found), datasets, frozenset(ids), tuple(erased))


def _names(critic: str, model: dict[str, Any]) -> bool:
    """Whether the critic's id has this model's id, name, directory or its last part between slashes (or a revision)."""
    parts = {model["model_id"], model["name"], model["path"].strip("/"), model["path"].rstrip("/").rpartition("/")[2]}
    return any(f"/{part}/" in f"/{critic.replace(':', '/')}/" for part in parts)
