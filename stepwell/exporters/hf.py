"""A sealed dataset as a folder of the Hugging Face `datasets` library (`load_from_disk`), with a dataset card.

Held: every row and column of the dataset, a split each of `split`, so that its hash can be computed again. The card says the
recipe, versions and hash, how many rows, tokens and trajectories there are and of which corpora, and the funnel of what was
left out; the licence is yours to fill in. Nothing is read back as a trajectory. Left out: rows of trajectories of which
something was taken down or redacted since the dataset was built. Needs the library, which comes with the extra `jobs`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa

from schemas.tables import DATASET
from stepwell.errors import UsageError
from stepwell.exporters.base import Make, Obj, Options
from stepwell.ids import digest
from stepwell.sheets import cell

_ROWS = 200
_SEAL = ("recipe", "recipe_hash", "dataset_hash", "events_version", "base_model")


class HuggingFace:
    """Writes one folder a dataset."""

    name = "hf"
    reads: Literal["trajectories", "dataset"] = "dataset"
    kinds: frozenset[str] = frozenset()
    holds: Mapping[str, tuple[str, ...]] = {}

    def __init__(self) -> None:
        self.sinks = {"": SavedToDisk}

    def make(self, options: Options) -> Make:
        """The rows as they are."""
        return dict


class SavedToDisk:
    """Arrow files of one split each, given to the library when all rows are there."""

    def __init__(self, path: Path, options: Options) -> None:
        try:
            import datasets
        except ImportError as error:
            raise UsageError("hf needs the library `datasets`: pip install 'stepwell[jobs]'.") from error
        self._library: Any = datasets
        self._path, self._about = path, options.about
        self._rows: dict[str, list[Obj]] = {}
        self._writers: dict[str, pa.RecordBatchStreamWriter] = {}
        self._counted: dict[str, Counter[str]] = {}
        self._corpora: Counter[str] = Counter()
        path.mkdir()

    def write(self, row: Obj) -> None:
        """Add a row to its split."""
        split = row["split"]
        if split not in self._writers:
            self._writers[split] = pa.ipc.new_stream(str(self._path / f".{split}.arrow"), DATASET.schema)
            self._rows[split], self._counted[split] = [], Counter()
        self._rows[split].append(row)
        counts = {k: row[k] for k in ("n_tokens", "n_trained_tokens", "n_masked_steps")}
        self._counted[split].update(rows=1, n_steps=len(row["steps"]), **counts)
        self._corpora[row["corpus"]] += 1
        if len(self._rows[split]) >= _ROWS:
            self._flush(split)

    def _flush(self, split: str) -> None:
        self._writers[split].write_table(pa.Table.from_pylist(self._rows[split], DATASET.schema))
        self._rows[split] = []

    def close(self) -> None:
        """Close the files of the splits."""
        for writer in self._writers.values():
            writer.close()

    def finish(self) -> None:
        """Have the library write its folder, the same bytes for the same rows, and the card beside."""
        parts = {}
        for split, writer in sorted(self._writers.items()):
            if self._rows[split]:
                self._flush(split)
            writer.close()
            table = self._library.table.MemoryMappedTable.from_file(str(self._path / f".{split}.arrow"))
            mark = digest("export", split, self._about.get("seal", {}).get("dataset_hash"), self._counted[split])
            parts[split] = self._library.Dataset(table, fingerprint=mark)
        self._library.disable_progress_bars()
        self._library.DatasetDict(parts).save_to_disk(str(self._path))
        del parts
        for split in self._writers:
            (self._path / f".{split}.arrow").unlink()
        (self._path / "README.md").write_text(card(self._about, self._counted, self._corpora), encoding="utf-8")


def card(about: Obj, counted: dict[str, Counter[str]], corpora: Counter[str]) -> str:
    """The dataset card: what this is, of what it was made, and how many there are."""
    seal = about.get("seal", {})
    lines = [
        "---",
        "license:  # yours to say: it depends on where the trajectories are from",
        "tags: [code-agents, trajectories, stepwell]",
        "---",
        "",
        f"# {about.get('table', 'dataset')}",
        "",
        "Training rows derived by Stepwell from recorded trajectories of code agents. A row names the events it was made of;",
        "`labels` is -100 where nothing is learnt. `messages` is JSON text.",
        "",
        "| made from | |",
        "|---|---|",
        f"| dataset version | {about.get('version')} |",
        *(f"| {name.replace('_', ' ')} | {cell(str(seal[name]))} |" for name in _SEAL if name in seal),
        f"| rows left out of this export | {cell(str(about.get('left_out') or 'none'))} |",
        "",
        "| split | rows | steps | masked steps | tokens | trained tokens |",
        "|---|---|---|---|---|---|",
    ]
    names = ("rows", "n_steps", "n_masked_steps", "n_tokens", "n_trained_tokens")
    lines += [f"| {s} | " + " | ".join(f"{c[n]:,}" for n in names) + " |" for s, c in sorted(counted.items())]
    lines += ["", "| corpus | rows |", "|---|---|"]
    lines += [f"| {cell(corpus)} | {n:,} |" for corpus, n in sorted(corpora.items())]
    funnel = orjson.loads(seal["funnel"]) if "funnel" in seal else []
    lines += ["", "| funnel | trajectories | steps | tokens |", "|---|---|---|---|"] if funnel else []
    for line in funnel:
        counts = " | ".join(f"{line.get(n, 0):,}" for n in ("trajectories", "steps", "tokens"))
        lines.append(f"| {cell(line['line'])} | {counts} |")
    return "\n".join(lines) + "\n"


EXPORTER = HuggingFace()
